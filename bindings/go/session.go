// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import (
	"context"
	"io"
	"math"
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// Session is one sequence of tokens.
type Session struct {
	Engine  *Engine
	guard   sync.Mutex // of pointer
	pointer *C.gptq_session
}

// Close gives the session's place back; inside a callback of the engine, or while another goroutine works in it, when that is over.
func (s *Session) Close() error {
	s.guard.Lock()
	p := s.pointer
	s.pointer = nil
	s.guard.Unlock()
	if p != nil {
		runtime.SetFinalizer(s, nil)
		s.Engine.destroy(func() { C.gptq_session_destroy(p) })
	}
	return nil
}

// Cancel ends the work in progress, from any goroutine at any time, also after Close.
func (s *Session) Cancel() {
	s.guard.Lock()
	defer s.guard.Unlock()
	if s.pointer != nil {
		C.gptq_session_cancel(s.pointer)
	}
}

// with calls f inside the engine, where nobody destroys the session meanwhile.
func (s *Session) with(f func(p *C.gptq_session, e *C.gptq_error) C.gptq_status) error {
	defer runtime.KeepAlive(s)
	if err := s.Engine.enter(); err != nil {
		return err
	}
	defer s.Engine.leave()
	s.guard.Lock()
	p := s.pointer
	s.guard.Unlock()
	if p == nil {
		return invalid("the session is closed")
	}
	return call(func(e *C.gptq_error) C.gptq_status { return f(p, e) })
}

// Append adds text; flags are TextAddBOS and TextParseSpecial.
func (s *Session) Append(text string, flags uint32) error {
	var a arena
	defer a.free()
	at, n := a.text(text)
	return s.with(func(p *C.gptq_session, e *C.gptq_error) C.gptq_status {
		return C.gptq_session_append_text(p, at, n, C.uint32_t(flags), nil, e)
	})
}

// AppendTokens adds tokens.
func (s *Session) AppendTokens(tokens []int32) error {
	return s.with(func(p *C.gptq_session, e *C.gptq_error) C.gptq_status {
		return C.gptq_session_append_tokens(p, (*C.gptq_token)(first(tokens)), C.size_t(len(tokens)), e)
	})
}

// SetPrediction says what the output is likely to have parts of, for generations with GenSpeculate; "" takes it away.
func (s *Session) SetPrediction(text string) error {
	var a arena
	defer a.free()
	at, n := a.text(text)
	if text == "" {
		at = nil
	}
	return s.with(func(p *C.gptq_session, e *C.gptq_error) C.gptq_status {
		return C.gptq_session_set_prediction(p, at, n, 0, e)
	})
}

// Options say how to generate. All zero: greedy, until the end token or the end of the context.
type Options struct {
	MaxTokens, TopK                                        int
	Temperature, TopP, MinP                                float32
	RepeatPenalty, FrequencyPenalty, PresencePenalty       float32
	PenaltyWindow                                          int
	DryMultiplier, DryBase                                 float32
	DryAllowedLength, DryWindow                            int
	TopNSigma, TypicalP                                    float32
	TemperatureRange, TemperatureExponent                  float32
	XTCProbability, XTCThreshold, MirostatTau, MirostatEta float32
	Seed                                                   uint64
	Bias                                                   map[int32]float32 // added to the logits of these tokens
	Stop                                                   []string
	DryBreakers                                            string      // no repeat goes over a token with one of these characters; "" = newline : " *
	Constraint                                             *Constraint // of the same model; nil = any text
	Banned                                                 *Constraint // phrases that never come, of NewBanned
	Pooling                                                int32       // PoolLast, PoolMean: generates nothing, but makes a vector for Session.Embedding
	Flags                                                  uint32      // GenIgnoreEOS, GenPrefillOnly, GenLogits, ...
	SamplingFlags                                          uint32      // SampleRandomSeed, SampleModelDefaults
}

func (o *Options) params(a *arena) (*C.gptq_generate_params, error) {
	p, s := zeroed[C.gptq_generate_params](a), zeroed[C.gptq_sampling](a)
	var n counts
	p.struct_size, p.flags, p.max_tokens, p.sampling = sizeOf(p), C.uint32_t(o.Flags), n.u32("MaxTokens", o.MaxTokens), s
	s.struct_size, s.flags, s.seed, s.top_k = sizeOf(s), C.uint32_t(o.SamplingFlags), C.uint64_t(o.Seed), n.i32("TopK", o.TopK)
	s.temperature, s.top_p, s.min_p, s.repeat_penalty = C.float(o.Temperature), C.float(o.TopP), C.float(o.MinP), C.float(o.RepeatPenalty)
	s.frequency_penalty, s.presence_penalty, s.penalty_window = C.float(o.FrequencyPenalty), C.float(o.PresencePenalty), n.u32("PenaltyWindow", o.PenaltyWindow)
	s.dry_multiplier, s.dry_base = C.float(o.DryMultiplier), C.float(o.DryBase)
	s.dry_allowed_length, s.dry_window = n.u32("DryAllowedLength", o.DryAllowedLength), n.u32("DryWindow", o.DryWindow)
	s.top_n_sigma, s.typical_p = C.float(o.TopNSigma), C.float(o.TypicalP)
	s.temperature_range, s.temperature_exponent = C.float(o.TemperatureRange), C.float(o.TemperatureExponent)
	s.xtc_probability, s.xtc_threshold = C.float(o.XTCProbability), C.float(o.XTCThreshold)
	s.mirostat_tau, s.mirostat_eta = C.float(o.MirostatTau), C.float(o.MirostatEta)
	biases, all := array[C.gptq_logit_bias](a, len(o.Bias))
	for token, bias := range o.Bias {
		all[s.n_bias].token, all[s.n_bias].bias = C.gptq_token(token), C.float(bias)
		s.n_bias++
	}
	s.bias = biases
	p.stop, p.n_stop = a.stringList(o.Stop)
	if o.DryBreakers != "" {
		s.dry_breakers.ptr, s.dry_breakers.size = a.text(o.DryBreakers)
	}
	if p.pooling = C.int32_t(o.Pooling); o.Pooling != PoolNone {
		p.flags |= GenPrefillOnly
	}
	if n.err != nil {
		return nil, n.err
	}
	if o.Constraint != nil {
		if p.constraint = o.Constraint.pointer; p.constraint == nil {
			return nil, invalid("the constraint is closed")
		}
	}
	if o.Banned != nil {
		if p.banned = o.Banned.pointer; p.banned == nil {
			return nil, invalid("the banned phrases are closed")
		}
	}
	return p, nil
}

// keep is for after a call that used params.
func (o *Options) keep() {
	runtime.KeepAlive(o.Constraint)
	runtime.KeepAlive(o.Banned)
}

// Start begins generating; Engine.Step does the work.
func (s *Session) Start(o Options) error {
	var a arena
	defer a.free()
	defer o.keep()
	params, err := o.params(&a)
	if err != nil {
		return err
	}
	return s.with(func(p *C.gptq_session, e *C.gptq_error) C.gptq_status { return C.gptq_session_start(p, params, e) })
}

// Info is the state of a session. StopReason is one of the constants Stop*.
type Info struct {
	Running                    bool
	StopReason                 int
	Status                     Status
	Tokens, Generated, Context int
	Prefill, Decode            time.Duration
	Pending                    int           // tokens not yet computed
	FirstToken                 time.Duration // from the start
	Guessed, GuessedRight      int           // tokens computed ahead; of them sampled
	Dropped                    int           // messages that the last SetChat left out
	unreadLogits               int
}

func infoOf(i *C.gptq_session_info) Info {
	return Info{
		Running: i.state == SessionRunning, StopReason: int(i.stop_reason), Status: Status(i.status), Tokens: int(i.n_tokens),
		Generated: int(i.n_generated), Context: int(i.n_ctx), Prefill: time.Duration(i.prefill_us) * time.Microsecond,
		Decode: time.Duration(i.decode_us) * time.Microsecond, Pending: int(i.n_pending),
		FirstToken: time.Duration(i.first_token_us) * time.Microsecond, Guessed: int(i.n_guessed), GuessedRight: int(i.n_guessed_right),
		Dropped: int(i.n_dropped), unreadLogits: int(i.logits_unread),
	}
}

// Info gives the state now.
func (s *Session) Info() (Info, error) {
	var i C.gptq_session_info
	i.struct_size = sizeOf(&i)
	err := s.with(func(p *C.gptq_session, _ *C.gptq_error) C.gptq_status { return C.gptq_session_info_get(p, &i) })
	return infoOf(&i), err
}

// unread collects what read(buffer) moves out, until there is no more.
func unread[T any](s *Session, read func(p *C.gptq_session, buffer *T, cap C.size_t, n *C.size_t) C.gptq_status) ([]T, error) {
	all, buffer := []T{}, make([]T, 512)
	err := s.with(func(p *C.gptq_session, _ *C.gptq_error) C.gptq_status {
		for {
			var n C.size_t
			if status := read(p, &buffer[0], C.size_t(len(buffer)), &n); status < 0 || n == 0 {
				return status
			}
			all = append(all, buffer[:n]...)
		}
	})
	return all, err
}

// ReadText gives the text that came since the last read, in whole UTF-8 code points.
func (s *Session) ReadText() (string, error) {
	text, err := unread(s, func(p *C.gptq_session, buffer *byte, cap C.size_t, n *C.size_t) C.gptq_status {
		return C.gptq_session_read(p, (*C.char)(unsafe.Pointer(buffer)), cap, n)
	})
	return string(text), err
}

// Marked is a piece of what was generated with GenMarked.
type Marked struct {
	Kind     int    // MarkAnswer, MarkThinking or MarkToolCall
	Text     string // of a tool call its arguments, a JSON object
	Call     int    // its number in this generation
	Name, ID string // of the tool; what the model called the call, or ""
}

// ReadMarked gives what came since the last read, with GenMarked, text of one kind in one piece. A tool call comes when it is complete.
func (s *Session) ReadMarked() ([]Marked, error) {
	pieces, buffer, more := []Marked{}, make([]byte, 512), false
	err := s.with(func(p *C.gptq_session, _ *C.gptq_error) C.gptq_status {
		for {
			var m C.gptq_marked
			m.struct_size = sizeOf(&m)
			if status := C.gptq_session_read_marked(p, (*C.char)(unsafe.Pointer(&buffer[0])), C.size_t(len(buffer)), &m); status < 0 || m.kind == MarkNone {
				return status
			}
			last := len(pieces) - 1
			if last < 0 || pieces[last].Kind != int(m.kind) || (m.kind == MarkToolCall && !more) {
				pieces = append(pieces, Marked{Kind: int(m.kind), Call: int(m.call), Name: C.GoString(&m.name[0]), ID: C.GoString(&m.id[0])})
				last++
			}
			pieces[last].Text += string(buffer[:m.size])
			more = m.more != 0
		}
	})
	return pieces, err
}

// ReadTokens gives the tokens that came since the last read.
func (s *Session) ReadTokens() ([]int32, error) {
	return unread(s, func(p *C.gptq_session, buffer *int32, cap C.size_t, n *C.size_t) C.gptq_status {
		return C.gptq_session_read_tokens(p, (*C.gptq_token)(buffer), cap, n)
	})
}

// ReadLogits gives rows [position][vocabulary] that came since the last read, with GenLogits, and the first position.
func (s *Session) ReadLogits() (position int, rows [][]float32, err error) {
	info, err := s.Info()
	if err != nil || info.unreadLogits == 0 {
		return 0, nil, err
	}
	vocab := s.Engine.Model.Info().Vocab
	values := make([]float32, info.unreadLogits*vocab)
	var at, n C.uint32_t
	err = s.with(func(p *C.gptq_session, _ *C.gptq_error) C.gptq_status {
		return C.gptq_session_read_logits(p, (*C.float)(first(values)), C.size_t(len(values)), &at, &n)
	})
	for i := 0; i < int(n); i++ {
		rows = append(rows, values[i*vocab:(i+1)*vocab])
	}
	return int(at), rows, err
}

// Tokens is the whole sequence.
func (s *Session) Tokens() ([]int32, error) {
	return sized(func(buffer *int32, cap C.size_t, needed *C.size_t) error {
		return s.with(func(p *C.gptq_session, _ *C.gptq_error) C.gptq_status {
			return C.gptq_session_tokens(p, (*C.gptq_token)(buffer), cap, needed)
		})
	})
}

// Truncate keeps the first n tokens.
func (s *Session) Truncate(n int) error {
	var c counts
	kept := c.u32("n", n)
	if c.err != nil {
		return c.err
	}
	return s.with(func(p *C.gptq_session, _ *C.gptq_error) C.gptq_status { return C.gptq_session_truncate(p, kept) })
}

// Fork makes a second session of the engine that stands where this one stands. It shares the KV cache.
func (s *Session) Fork() (*Session, error) {
	defer runtime.KeepAlive(s)
	return s.Engine.create(func(out **C.gptq_session, err *C.gptq_error) C.gptq_status {
		s.guard.Lock()
		defer s.guard.Unlock() // the engine is ours: it is held for a moment only
		return C.gptq_session_fork(s.pointer, out, err)
	})
}

// Save gives what Engine.Restore makes a session of that goes on where this one stands, also while it generates. kind is SaveReplay or
// SaveFull, which has the KV cache in it.
func (s *Session) Save(kind int) ([]byte, error) {
	return sized(func(buffer *byte, cap C.size_t, needed *C.size_t) error {
		return s.with(func(p *C.gptq_session, e *C.gptq_error) C.gptq_status {
			return C.gptq_session_save(p, C.int32_t(kind), unsafe.Pointer(buffer), cap, needed, e)
		})
	})
}

// SaveTo writes the same in pieces, so that nothing holds the whole save. An error of w is what the call's error unwraps to.
func (s *Session) SaveTo(w io.Writer, kind int) error {
	c := &callbacks{writer: w}
	user := c.open()
	return c.close(s.with(func(p *C.gptq_session, e *C.gptq_error) C.gptq_status {
		return C.gptq_session_save_to(p, C.int32_t(kind), C.gptq_write_fn(C.gptq_go_write), user, e)
	}))
}

// SessionID names a session among those that live.
type SessionID uintptr

// ID is what Engine.Readable names the session by; 0 when it is closed.
func (s *Session) ID() SessionID {
	s.guard.Lock()
	defer s.guard.Unlock()
	return SessionID(uintptr(unsafe.Pointer(s.pointer)))
}

// Score is the sum of a text's log-probabilities, and of how many tokens.
type Score struct {
	LogProb float64
	Tokens  int
}

// Score says how likely each text is behind what stands. The session stays as it is; it needs a free place for another.
func (s *Session) Score(texts []string) ([]Score, error) {
	var a arena
	defer a.free()
	list, n := a.stringList(texts)
	sums, counts := make([]float64, len(texts)), make([]uint32, len(texts))
	err := s.with(func(p *C.gptq_session, e *C.gptq_error) C.gptq_status {
		return C.gptq_score(p, list, n, (*C.double)(first(sums)), (*C.uint32_t)(first(counts)), e)
	})
	if err != nil {
		return nil, err
	}
	scores := make([]Score, len(texts))
	for i := range scores {
		scores[i] = Score{LogProb: sums[i], Tokens: int(counts[i])}
	}
	return scores, nil
}

// Candidate is a token and the natural logarithm of its probability.
type Candidate struct {
	Token   int32
	LogProb float32
}

// TokenLogProb is a token of the sequence, its log-probability (NaN where that is not known), and the most likely ones there.
type TokenLogProb struct {
	Candidate
	Best []Candidate
}

// LogProbs gives those at positions first to first+n-1, with GenLogprobs; as many of the best as EngineOptions.BestLogProbs.
func (s *Session) LogProbs(first, n int) ([]TokenLogProb, error) {
	var c counts
	at, count := c.u32("first", first), c.u32("n", n)
	if c.err != nil {
		return nil, c.err
	}
	tokens, err := s.Tokens()
	if err != nil {
		return nil, err
	}
	room, best := n, s.Engine.nBest
	if room > len(tokens) {
		room, count = len(tokens), math.MaxUint32 // C refuses it
	}
	chosen, candidates := make([]float32, room+1), make([]C.gptq_token_logprob, room*best+1)
	err = s.with(func(p *C.gptq_session, _ *C.gptq_error) C.gptq_status {
		return C.gptq_session_logprobs(p, at, count, (*C.float)(&chosen[0]), &candidates[0])
	})
	if err != nil {
		return nil, err
	}
	all := make([]TokenLogProb, n)
	for i := range all {
		all[i].Candidate = Candidate{Token: tokens[first+i], LogProb: chosen[i]}
		for _, one := range candidates[i*best : (i+1)*best] {
			if one.token >= 0 {
				all[i].Best = append(all[i].Best, Candidate{Token: int32(one.token), LogProb: float32(one.logprob)})
			}
		}
	}
	return all, nil
}

// Embedding is the vector that a start with Options.Pooling made of the sequence; normalize: scaled to length 1.
func (s *Session) Embedding(normalize bool) ([]float32, error) {
	var flags C.uint32_t
	if normalize {
		flags = EmbedNormalize
	}
	return sized(func(buffer *float32, cap C.size_t, needed *C.size_t) error {
		return s.with(func(p *C.gptq_session, _ *C.gptq_error) C.gptq_status {
			return C.gptq_session_embedding(p, flags, (*C.float)(buffer), cap, needed)
		})
	})
}

// Generate continues the prompt to the end. onText (may be nil) gets the text as it comes and ends it by returning false; its panic goes
// on above this call. Cancelling ctx ends it too, with ctx's error. onText runs on this goroutine and may not call the engine, nor
// runtime.Goexit (testing's FailNow): that would leave C halfway.
func (s *Session) Generate(ctx context.Context, prompt string, o Options, onText func(string) bool) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	var a arena
	defer a.free()
	defer o.keep()
	var i C.gptq_session_info
	i.struct_size = sizeOf(&i)
	params, err := o.params(&a)
	if err != nil {
		return Info{}, err
	}
	at, n := a.text(prompt)
	c := &callbacks{text: func(text string) bool { return ctx.Err() == nil && (onText == nil || onText(text)) }}
	user := c.open()
	release := s.cancelWith(ctx)
	err = s.with(func(p *C.gptq_session, e *C.gptq_error) C.gptq_status {
		return C.gptq_generate(p, at, n, params, C.gptq_text_fn(C.gptq_go_text), user, &i, e)
	})
	release()
	err = c.close(err)
	if err == nil && i.stop_reason == StopCancelled {
		err = ctx.Err()
	}
	return infoOf(&i), err
}

// cancelWith cancels the session's work when ctx is cancelled, until release is called.
func (s *Session) cancelWith(ctx context.Context) (release func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		for { // once more, where the generation had not begun yet
			s.Cancel()
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() {
		close(done)
		<-over
	}
}

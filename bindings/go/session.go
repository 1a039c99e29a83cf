// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import (
	"context"
	"io"
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// Session is one sequence of tokens.
type Session struct {
	Engine  *Engine
	guard   sync.Mutex // of pointer, for Cancel
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

// Cancel ends the work, from any goroutine at any time, also after Close.
func (s *Session) Cancel() {
	s.guard.Lock()
	defer s.guard.Unlock()
	if s.pointer != nil {
		C.gptq_session_cancel(s.pointer)
	}
}

// with calls f inside the engine.
func (s *Session) with(f func(e *C.gptq_error) C.gptq_status) error {
	if err := s.Engine.enter(); err != nil {
		return err
	}
	defer s.Engine.leave()
	if s.pointer == nil {
		return &Error{Status: ErrInvalidState, Message: "the session is closed"}
	}
	err := call(f)
	runtime.KeepAlive(s)
	return err
}

// Append adds text; flags are TextAddBOS and TextParseSpecial.
func (s *Session) Append(text string, flags uint32) error {
	var a arena
	defer a.free()
	at, n := a.text(text)
	return s.with(func(e *C.gptq_error) C.gptq_status {
		return C.gptq_session_append_text(s.pointer, at, n, C.uint32_t(flags), nil, e)
	})
}

func (s *Session) AppendTokens(tokens []int32) error {
	return s.with(func(e *C.gptq_error) C.gptq_status {
		at, n := ids(tokens)
		return C.gptq_session_append_tokens(s.pointer, at, n, e)
	})
}

// SetChat makes the sequence that of the conversation, keeping what it already begins with; it returns its tokens.
func (s *Session) SetChat(messages []Message) (int, error) {
	var a arena
	defer a.free()
	var n C.size_t
	chat := chatOf(&a, messages)
	err := s.with(func(e *C.gptq_error) C.gptq_status { return C.gptq_session_set_chat(s.pointer, chat, &n, e) })
	return int(n), err
}

// Options say how to generate. All zero: greedy, until the end token or the end of the context.
type Options struct {
	MaxTokens, TopK                        int
	Temperature, TopP, MinP, RepeatPenalty float32
	Seed                                   uint64
	Stop                                   []string
	Flags                                  uint32 // GenIgnoreEOS, GenPrefillOnly, GenLogits, ...
	SamplingFlags                          uint32 // SampleRandomSeed, SampleModelDefaults
}

func (o Options) params(a *arena) *C.gptq_generate_params {
	p, s := zeroed[C.gptq_generate_params](a), zeroed[C.gptq_sampling](a)
	p.struct_size, p.flags, p.max_tokens, p.sampling = sizeOf(p), C.uint32_t(o.Flags), C.uint32_t(o.MaxTokens), s
	s.struct_size, s.flags, s.seed, s.top_k = sizeOf(s), C.uint32_t(o.SamplingFlags), C.uint64_t(o.Seed), C.int32_t(o.TopK)
	s.temperature, s.top_p, s.min_p, s.repeat_penalty = C.float(o.Temperature), C.float(o.TopP), C.float(o.MinP), C.float(o.RepeatPenalty)
	first, strings := array[C.gptq_string](a, len(o.Stop))
	for i, stop := range o.Stop {
		strings[i].ptr, strings[i].size = a.text(stop)
	}
	p.stop, p.n_stop = first, C.size_t(len(o.Stop))
	return p
}

// Start begins generating; Engine.Step does the work.
func (s *Session) Start(o Options) error {
	var a arena
	defer a.free()
	p := o.params(&a)
	return s.with(func(e *C.gptq_error) C.gptq_status { return C.gptq_session_start(s.pointer, p, e) })
}

// Info is the state of a session. StopReason is one of the constants Stop*.
type Info struct {
	Running                    bool
	StopReason                 int
	Status                     Status
	Tokens, Generated, Context int
	Prefill, Decode            time.Duration
	unreadLogits               int
}

func infoOf(i *C.gptq_session_info) Info {
	return Info{
		Running: i.state == SessionRunning, StopReason: int(i.stop_reason), Status: Status(i.status), Tokens: int(i.n_tokens),
		Generated: int(i.n_generated), Context: int(i.n_ctx), Prefill: time.Duration(i.prefill_us) * time.Microsecond,
		Decode: time.Duration(i.decode_us) * time.Microsecond, unreadLogits: int(i.logits_unread),
	}
}

func (s *Session) Info() (Info, error) {
	var i C.gptq_session_info
	i.struct_size = sizeOf(&i)
	err := s.with(func(*C.gptq_error) C.gptq_status { return C.gptq_session_info_get(s.pointer, &i) })
	return infoOf(&i), err
}

// ReadText gives the text that came since the last read, in whole UTF-8 code points.
func (s *Session) ReadText() (string, error) {
	var text []byte
	buffer := make([]byte, 512)
	for {
		var n C.size_t
		err := s.with(func(*C.gptq_error) C.gptq_status {
			return C.gptq_session_read(s.pointer, (*C.char)(unsafe.Pointer(&buffer[0])), C.size_t(len(buffer)), &n)
		})
		if err != nil || n == 0 {
			return string(text), err
		}
		text = append(text, buffer[:n]...)
	}
}

func (s *Session) ReadTokens() ([]int32, error) {
	tokens, buffer := []int32{}, make([]int32, 256)
	for {
		var n C.size_t
		err := s.with(func(*C.gptq_error) C.gptq_status {
			return C.gptq_session_read_tokens(s.pointer, (*C.gptq_token)(&buffer[0]), C.size_t(len(buffer)), &n)
		})
		if err != nil || n == 0 {
			return tokens, err
		}
		tokens = append(tokens, buffer[:n]...)
	}
}

// ReadLogits gives rows [position][vocabulary] that came since the last read, with GenLogits, and the first position.
func (s *Session) ReadLogits() (first int, rows [][]float32, err error) {
	info, err := s.Info()
	if err != nil || info.unreadLogits == 0 {
		return 0, nil, err
	}
	vocab := s.Engine.Model.Info().Vocab
	values := make([]float32, info.unreadLogits*vocab)
	var position, n C.uint32_t
	err = s.with(func(*C.gptq_error) C.gptq_status {
		return C.gptq_session_read_logits(s.pointer, (*C.float)(&values[0]), C.size_t(len(values)), &position, &n)
	})
	for i := 0; i < int(n); i++ {
		rows = append(rows, values[i*vocab:(i+1)*vocab])
	}
	return int(position), rows, err
}

// Tokens is the whole sequence.
func (s *Session) Tokens() ([]int32, error) {
	return sized(func(buffer *int32, cap C.size_t, needed *C.size_t) error {
		return s.with(func(*C.gptq_error) C.gptq_status { return C.gptq_session_tokens(s.pointer, (*C.gptq_token)(buffer), cap, needed) })
	})
}

// Truncate keeps the first n tokens.
func (s *Session) Truncate(n int) error {
	return s.with(func(*C.gptq_error) C.gptq_status { return C.gptq_session_truncate(s.pointer, C.uint32_t(n)) })
}

// Generate continues the prompt to the end. onText (may be nil) gets the text as it comes and ends it by returning false; its panic goes
// on above this call. Cancelling ctx ends it too, with ctx's error.
func (s *Session) Generate(ctx context.Context, prompt string, o Options, onText func(string) bool) (Info, error) {
	var a arena
	defer a.free()
	var i C.gptq_session_info
	i.struct_size = sizeOf(&i)
	p := o.params(&a)
	at, n := a.text(prompt)
	c := &callbacks{text: func(text string) bool { return ctx.Err() == nil && (onText == nil || onText(text)) }}
	done := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
			s.Cancel()
		case <-done:
		}
	}()
	user := c.open()
	err := s.with(func(e *C.gptq_error) C.gptq_status {
		return C.gptq_generate(s.pointer, at, n, p, C.gptq_text_fn(C.gptq_go_text), user, &i, e)
	})
	close(done)
	c.close()
	if err == nil {
		err = ctx.Err()
	}
	return infoOf(&i), err
}

// Stream is the text of a session that works while it is read.
type Stream struct {
	session *Session
	ctx     context.Context
	rest    string
}

// Stream continues the prompt. Close the stream, or cancel ctx, to end it early.
func (s *Session) Stream(ctx context.Context, prompt string, o Options) (*Stream, error) {
	info, err := s.Info()
	if err != nil {
		return nil, err
	}
	flags := uint32(TextParseSpecial)
	if info.Tokens == 0 {
		flags |= TextAddBOS
	}
	if prompt != "" {
		if err := s.Append(prompt, flags); err != nil {
			return nil, err
		}
	}
	return &Stream{session: s, ctx: ctx}, s.Start(o)
}

// Next gives the next piece of text, and io.EOF after the last.
func (t *Stream) Next() (string, error) {
	for {
		if t.ctx.Err() != nil {
			_ = t.Close()
			return "", t.ctx.Err()
		}
		info, err := t.session.Info()
		if err != nil {
			return "", err
		}
		if piece, err := t.session.ReadText(); err != nil || piece != "" {
			return piece, err
		}
		if !info.Running {
			if err := check(C.gptq_status(info.Status)); err != nil {
				return "", err
			}
			return "", io.EOF
		}
		if _, err := t.session.Engine.Step(5 * time.Millisecond); err != nil {
			return "", err
		}
	}
}

// Read makes it an io.Reader.
func (t *Stream) Read(p []byte) (int, error) {
	if t.rest == "" {
		piece, err := t.Next()
		if err != nil {
			return 0, err
		}
		t.rest = piece
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// Close ends the session's work.
func (t *Stream) Close() error {
	t.session.Cancel()
	_, err := t.session.Engine.Step(time.Microsecond) // which ends it; a poll would not
	return err
}

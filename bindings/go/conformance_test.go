// SPDX-License-Identifier: Apache-2.0

package gptq_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"libgptq/gptq"
)

// The calls of bindings/conformance.json (GPTQ_CASES), on the models of the folder GPTQ_MODELS.

type object = map[string]any

type testCase struct {
	runtime  *gptq.Runtime
	models   string
	model    *gptq.Model
	engine   *gptq.Engine
	sessions map[int]*gptq.Session
	saved    []byte
}

func (c *testCase) path(name string) string { return filepath.Join(c.models, name+".gptq") }

func (c *testCase) open(model string, o engineOptions) (err error) {
	c.close()
	if c.model, err = c.runtime.Load(context.Background(), c.path(model), nil); err != nil {
		return err
	}
	c.engine, err = c.model.NewEngine(o.options())
	c.sessions = map[int]*gptq.Session{}
	return err
}

func (c *testCase) close() {
	for _, s := range c.sessions {
		s.Close()
	}
	if c.engine != nil {
		c.engine.Close()
	}
	if c.model != nil {
		c.model.Close()
	}
}

func (c *testCase) options(p params) (gptq.Options, error) {
	o := gptq.Options{
		MaxTokens: p.MaxTokens, Temperature: p.Temperature, TopK: p.TopK, TopP: p.TopP, MinP: p.MinP, RepeatPenalty: p.RepeatPenalty,
		Seed: p.Seed, Stop: p.Stop, Pooling: poolings[p.Pooling],
	}
	for flag, wanted := range map[uint32]bool{gptq.GenIgnoreEOS: p.IgnoreEOS, gptq.GenPrefillOnly: p.PrefillOnly, gptq.GenLogits: p.Logits, gptq.GenMarked: p.Marked,
		gptq.GenLogprobs: p.LogProbs} {
		if wanted {
			o.Flags |= flag
		}
	}
	var err error
	if p.Choice != nil {
		o.Constraint, err = c.model.NewChoice(p.Choice...)
	} else if p.Regex != "" {
		o.Constraint, err = c.model.NewRegex(p.Regex)
	} else if p.Constraint != nil {
		compile := map[string]func(any) (*gptq.Constraint, error){
			"json_schema": c.model.NewJSONSchema, "json_compact": c.model.NewCompactJSONSchema, "tags": c.model.NewTags,
			"grammar": func(source any) (*gptq.Constraint, error) { return c.model.NewGrammar(source.(string)) },
		}
		o.Constraint, err = compile[p.Constraint.Kind](p.Constraint.Source)
	}
	if p.Banned != nil && err == nil {
		o.Banned, err = c.model.NewBanned(p.Banned...)
	}
	return o, err
}

var reasons = map[int]string{
	gptq.StopNone: "none", gptq.StopEOS: "eos", gptq.StopString: "string", gptq.StopLength: "length", gptq.StopContext: "context",
	gptq.StopCancelled: "cancelled", gptq.StopConstraint: "constraint", gptq.StopError: "error", gptq.StopPrefilled: "prefilled",
}

func (c *testCase) run(d *description) (object, error) {
	ctx := context.Background()
	switch d.Call {
	case "load":
		_, err := c.runtime.Load(ctx, c.path(d.Model), nil)
		return nil, err
	case "use":
		return nil, c.open(d.Model, engineOptions{})
	case "model_info":
		i := c.model.Info()
		return object{"n_vocab": i.Vocab, "n_layers": i.Layers, "n_embd": i.Width, "bits": i.Bits, "group_size": i.GroupSize, "bos": i.BOS, "eos": i.EOS}, nil
	case "meta":
		text, err := c.model.Meta(d.Key)
		return object{"text": text}, err
	case "tokenize":
		tokens, err := c.model.Tokenize(d.text(), d.flags())
		return object{"tokens": tokens}, err
	case "detokenize":
		text, err := c.model.Detokenize(d.ids(), d.flags())
		return object{"text": text}, err
	case "render_chat":
		text, err := c.model.RenderChat(d.messages(), d.chat())
		return object{"text": text}, err
	case "finish":
		budget, steps := int64(-1), 1
		if d.BudgetUS != nil {
			budget = *d.BudgetUS
		}
		for ; ; steps++ {
			if step, err := c.engine.Step(time.Duration(budget) * time.Microsecond); err != nil || !step.More {
				return object{"many_steps": steps > 1}, err
			}
		}
	case "restore":
		restore := func() (*gptq.Session, bool, error) { return c.engine.Restore(c.saved) }
		if d.From != "" {
			restore = func() (*gptq.Session, bool, error) {
				return c.engine.RestoreFrom(gptq.FromReaderAt(bytes.NewReader(c.saved), int64(len(c.saved))))
			}
		}
		s, exact, err := restore()
		if err == nil {
			c.sessions[d.As] = s
		}
		return object{"exact": exact}, err
	case "quantize":
		return c.quantize(ctx, d)
	}
	if found, err, known := c.more(ctx, d); known {
		return found, err
	}
	s := c.sessions[d.Session]
	if s == nil {
		var err error
		if s, err = c.engine.NewSession(); err != nil {
			return nil, err
		}
		c.sessions[d.Session] = s
	}
	return c.runSession(ctx, s, d)
}

func (c *testCase) runSession(ctx context.Context, s *gptq.Session, d *description) (object, error) {
	o, err := c.options(d.Params)
	if err != nil {
		return nil, err
	}
	switch d.Call {
	case "append":
		return nil, s.Append(d.text(), d.flags())
	case "append_tokens":
		return nil, s.AppendTokens(d.ids())
	case "chat":
		n, err := s.SetChat(d.messages(), d.chat())
		return object{"n_tokens": n}, err
	case "start":
		return nil, s.Start(o)
	case "read":
		text, err := s.ReadText()
		return object{"text": text}, err
	case "read_marked":
		pieces, err := s.ReadMarked()
		told := []string{}
		for _, piece := range pieces {
			who := map[int]string{gptq.MarkAnswer: "answer", gptq.MarkThinking: "thinking", gptq.MarkToolCall: piece.Name}[piece.Kind]
			told = append(told, who+" "+piece.Text)
		}
		return object{"text": strings.Join(told, "|")}, err
	case "read_tokens":
		tokens, err := s.ReadTokens()
		return object{"tokens": tokens}, err
	case "read_logits":
		first, rows, err := s.ReadLogits()
		best := []int{}
		for _, row := range rows {
			at := 0
			for i := range row {
				if row[i] > row[at] {
					at = i
				}
			}
			best = append(best, at)
		}
		return object{"first": first, "rows": len(rows), "best": best}, err
	case "tokens":
		tokens, err := s.Tokens()
		return object{"tokens": tokens}, err
	case "truncate":
		return nil, s.Truncate(d.NTokens)
	case "cancel":
		s.Cancel()
		return nil, nil
	case "close":
		delete(c.sessions, d.Session)
		return nil, s.Close()
	case "fork":
		fork, err := s.Fork()
		c.sessions[d.As] = fork
		return nil, err
	case "save":
		kind := gptq.SaveReplay
		if d.Full {
			kind = gptq.SaveFull
		}
		if d.To == "" {
			c.saved, err = s.Save(kind)
		} else {
			var stream bytes.Buffer
			err = s.SaveTo(&stream, kind)
			c.saved = stream.Bytes()
		}
		return object{"small": len(c.saved) > 0 && len(c.saved) < 4096}, err
	case "info":
		i, err := s.Info()
		return object{"running": i.Running, "stop_reason": reasons[i.StopReason], "n_tokens": i.Tokens, "n_generated": i.Generated,
			"n_dropped": i.Dropped, "n_ctx": i.Context}, err
	case "set_adapter":
		if d.Adapter == "" {
			return nil, s.SetAdapter(nil, 0)
		}
		adapter, err := c.adapter(d)
		if err != nil {
			return nil, err
		}
		defer adapter.Close()
		scale := float32(1)
		if d.Scale != nil {
			scale = *d.Scale
		}
		return nil, s.SetAdapter(adapter, scale)
	case "score":
		scores, err := s.Score(d.texts())
		sums, counts := []float64{}, []int{}
		for _, one := range scores {
			sums, counts = append(sums, one.LogProb), append(counts, one.Tokens)
		}
		return object{"logprobs": sums, "n_tokens": counts}, err
	case "logprobs":
		all, err := s.LogProbs(d.First, d.N)
		tokens, best, chosen, ofBest := []int32{}, []int32{}, []float32{}, []float32{}
		for _, one := range all {
			tokens, chosen = append(tokens, one.Token), append(chosen, one.LogProb)
			for _, candidate := range one.Best {
				best, ofBest = append(best, candidate.Token), append(ofBest, candidate.LogProb)
			}
		}
		return object{"tokens": tokens, "logprobs": chosen, "best": best, "best_logprobs": ofBest}, err
	case "embedding":
		vector, err := s.Embedding(d.Normalize)
		if err != nil {
			return nil, err
		}
		return object{"n_embd": len(vector), "vectors": vector[:4]}, nil
	case "stream":
		stream, err := s.Stream(ctx, d.text(), o)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(stream)
		return object{"text": string(text)}, err
	case "generate":
		text, pieces := "", 0
		i, err := s.Generate(ctx, d.text(), o, func(piece string) bool {
			text += piece
			pieces++
			return pieces != d.Pieces
		})
		return object{"text": text, "stop_reason": reasons[i.StopReason], "n_generated": i.Generated}, err
	}
	return nil, fmt.Errorf("no call is named %s", d.Call)
}

func (c *testCase) adapter(d *description) (*gptq.Adapter, error) {
	name := c.path(d.Adapter) + "-lora"
	if d.From == "" {
		return c.model.LoadAdapter(gptq.FromFile(name))
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, _ := file.Stat()
	return c.model.LoadAdapter(gptq.FromReaderAt(file, info.Size()))
}

func (c *testCase) loadFrom(ctx context.Context, d *description) (object, error) {
	data, err := os.ReadFile(c.path(d.Model))
	if err != nil {
		return nil, err
	}
	source := gptq.FromBytes(data)
	switch d.From {
	case "part":
		source = gptq.FromFile(c.path(d.Model)).Part(8, 0)
	case "stream":
		source = gptq.FromReaderAt(strings.NewReader(string(data)), int64(len(data)))
	}
	m, err := c.runtime.LoadFrom(ctx, source, gptq.LoadOptions{})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return object{"n_vocab": m.Info().Vocab}, nil
}

// more are the calls that need no session; known says whether it was one.
func (c *testCase) more(ctx context.Context, d *description) (found object, err error, known bool) {
	known = true
	switch d.Call {
	case "load_from":
		found, err = c.loadFrom(ctx, d)
	case "token":
		var token gptq.Token
		token, err = c.model.Token(d.ids()[0])
		found = object{"text": string(token.Bytes), "special": token.Special, "end": token.End}
	case "placements":
		var all []gptq.Placement
		all, err = c.model.Placements()
		layers := 0
		for _, one := range all {
			layers += one.Layers
		}
		found = object{"devices": len(all), "n_layers": layers}
	case "devices":
		_, err = c.runtime.Devices()
	case "estimate":
		var engine *gptq.EngineOptions
		if d.Engine != nil {
			options := d.Engine.options()
			engine = &options
		}
		var e gptq.MemoryEstimate
		e, err = c.runtime.Estimate(gptq.FromFile(c.path(d.Model)), gptq.LoadOptions{}, engine)
		found = object{"fits": e.Fits, "host_kv": e.HostKV, "device_weights": e.DeviceWeights}
	case "quantize_estimate":
		var e gptq.QuantizeEstimate
		e, err = c.runtime.QuantizeEstimate(gptq.FromFile(c.path(d.Model)), gptq.QuantizeOptions{
			Bits: d.Params.Bits, GroupSize: d.Params.GroupSize, Rows: d.Params.Rows, RowTokens: d.Params.RowTokens,
		})
		found = object{"n_modules": e.Modules}
	case "memory":
		var i gptq.MemoryInfo
		i, err = c.engine.Memory()
		found = object{"page_tokens": i.PageTokens, "kv_pages_total": i.KVPagesTotal, "kv_pages_used": i.KVPagesUsed}
	case "readable":
		var ids []gptq.SessionID
		ids, err = c.engine.Readable()
		numbers := []int{}
		for number, s := range c.sessions {
			for _, id := range ids {
				if s.ID() == id {
					numbers = append(numbers, number)
				}
			}
		}
		sort.Ints(numbers)
		found = object{"sessions": numbers}
	case "adapter_info":
		var adapter *gptq.Adapter
		if adapter, err = c.adapter(d); err == nil {
			var i gptq.AdapterInfo
			i, err = adapter.Info()
			found = object{"rank": i.Rank, "n_matrices": i.Matrices}
			adapter.Close()
		}
	case "embed":
		var vectors [][]float32
		vectors, err = c.engine.Embed(d.texts(), poolings[d.Pooling], d.Normalize)
		width, heads := 0, []float32{}
		for _, vector := range vectors {
			width, heads = len(vector), append(heads, vector[:4]...)
		}
		found = object{"rows": len(vectors), "n_embd": width, "vectors": heads}
	default:
		known = false
	}
	return
}

func (c *testCase) quantize(ctx context.Context, d *description) (object, error) {
	reports, rises, before := 0, false, -1.0
	err := c.runtime.Quantize(ctx, c.path(d.From), c.path(d.To), gptq.QuantizeOptions{
		Bits: d.Params.Bits, GroupSize: d.Params.GroupSize, Rows: d.Params.Rows, RowTokens: d.Params.RowTokens, Replace: true,
		HeadBits: d.Params.HeadBits, Damp: d.Params.Damp, FirstTokenWeight: d.Params.FirstToken, BitsPerWeight: d.Params.BitsPerWeight,
		FileBytesMax: d.Params.FileBytesMax, Asymmetric: d.Params.Asymmetric, Aim: d.Params.Aim, Reference: d.Params.Reference, Tokens: d.Params.Tokens,
		Report: func(gptq.Report) { reports++ },
		Progress: func(phase gptq.Phase, done float64) bool {
			if phase == gptq.PhaseQuantize {
				done++
			}
			rises, before = (rises || before < 0) && done >= before, done
			return true
		},
	})
	return object{"reports": reports, "progress": rises}, err
}

// same says whether values are; numbers that processors compute differ in their last digits.
func same(found, value any) bool {
	switch v := value.(type) {
	case float64:
		f, ok := found.(float64)
		return ok && math.Abs(f-v) <= 1e-4*math.Max(1, math.Abs(v))
	case []any:
		list, ok := found.([]any)
		for i := range v {
			ok = ok && len(list) == len(v) && same(list[i], v[i])
		}
		return ok && len(list) == len(v)
	}
	return found == value
}

// difference says what is not as expected.
func difference(c *testCase, d *description) string {
	found, err := c.run(d)
	if err != nil {
		e, ok := err.(*gptq.Error)
		if !ok || e.Status.String() != d.Error || !strings.Contains(e.Message, d.Message) || !strings.Contains(e.Site, d.Site) {
			return fmt.Sprintf("%#v", err)
		}
		return ""
	}
	if d.Error != "" {
		return "no " + d.Error
	}
	text, _ := json.Marshal(found)
	var got object
	_ = json.Unmarshal(text, &got)
	for name, value := range d.Expect {
		if !same(got[name], value) {
			return fmt.Sprintf("%s is %v, not %v", name, got[name], value)
		}
	}
	return ""
}

func TestConformance(t *testing.T) {
	text, err := os.ReadFile(os.Getenv("GPTQ_CASES"))
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Cases []struct {
			Name, Model string
			Engine      engineOptions
			Calls       []description
		}
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	runtime, err := gptq.NewRuntime(gptq.RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.Close()
	for _, one := range all.Cases {
		c := testCase{runtime: runtime, models: os.Getenv("GPTQ_MODELS")}
		if err := c.open(one.Model, one.Engine); err != nil {
			t.Fatal(err)
		}
		wrong := ""
		for i := range one.Calls {
			if wrong = difference(&c, &one.Calls[i]); wrong != "" {
				wrong = one.Calls[i].Call + ": " + wrong
				break
			}
		}
		c.close()
		if wrong == "" {
			fmt.Println("ok - " + one.Name)
		} else {
			t.Fail()
			fmt.Println("not ok - " + one.Name + ": " + wrong)
		}
	}
}

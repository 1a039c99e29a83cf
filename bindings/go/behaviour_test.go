// SPDX-License-Identifier: Apache-2.0

package gptq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"libgptq/gptq"
)

// Cancel from other goroutines, closing at odd times, callbacks that panic, and no leaks.

var background = context.Background()

func path(name string) string { return filepath.Join(os.Getenv("GPTQ_MODELS"), name+".gptq") }

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func textModel() *gptq.Model {
	return must(must(gptq.NewRuntime(gptq.RuntimeOptions{Threads: 1})).Load(background, path("text"), nil))
}

func newEngine(sessions int) *gptq.Engine {
	return must(textModel().NewEngine(gptq.EngineOptions{MaxSessions: sessions, ContextTokens: 256, Exact: true}))
}

func tokens(n int) gptq.Options { return gptq.Options{MaxTokens: n, Flags: gptq.GenIgnoreEOS} }

func test(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			fmt.Printf("not ok - %s: %v\n", name, p)
			t.Fail()
		} else {
			fmt.Println("ok - " + name)
		}
	}()
	f()
}

func expect(holds bool, what ...any) {
	if !holds {
		panic(fmt.Sprint(what...))
	}
}

func resident() int64 {
	var all, pages int64
	_, _ = fmt.Sscan(string(must(os.ReadFile("/proc/self/statm"))), &all, &pages)
	return pages * int64(os.Getpagesize())
}

// growth is how much memory 1,000 cycles add: the least of four rounds, since a leak shows in each, but the heap's own size swings.
func growth(cycle func()) int64 {
	settle := func() {
		for i := 0; i < 4; i++ { // finalizers run a collection later
			runtime.GC()
			time.Sleep(5 * time.Millisecond)
		}
	}
	least := int64(1) << 40
	for round := 0; round < 5; round++ {
		settle()
		before := resident()
		for i := 0; i < 1000; i++ {
			cycle()
		}
		settle()
		if grown := resident() - before; round > 0 && grown < least { // the first warms up
			least = grown
		}
		if testing.Short() {
			return 0
		}
	}
	return least
}

func TestObjects(t *testing.T) {
	test(t, "1,000 times everything, made and closed", func() {
		grown := growth(func() {
			r := must(gptq.NewRuntime(gptq.RuntimeOptions{Threads: 1, Log: func(int, string) {}}))
			m := must(r.Load(background, path("text"), nil))
			e := must(m.NewEngine(gptq.EngineOptions{MaxSessions: 2, ContextTokens: 64}))
			s := must(e.NewSession())
			must(s.Generate(background, "a", tokens(1), nil))
			fork := must(s.Fork())
			c := must(m.NewChoice("yes", "no"))
			a := must(m.LoadAdapter(gptq.FromFile(path("text") + "-lora")))
			expect(s.SetAdapter(a, 1) == nil && s.SaveTo(io.Discard, gptq.SaveReplay) == nil, "an adapter")
			for _, one := range []io.Closer{c, a, fork, s, e, m, r} {
				expect(one.Close() == nil && one.Close() == nil, "closing")
			}
		})
		expect(grown < 1<<20, grown, " bytes more")
	})
}

func TestCollected(t *testing.T) {
	test(t, "what is not closed is released by the garbage collector", func() {
		n := 0
		grown := growth(func() {
			must(must(textModel().NewEngine(gptq.EngineOptions{ContextTokens: 64})).NewSession())
			if n++; n%10 == 0 {
				runtime.GC()
			}
		})
		expect(grown < 8<<20, grown, " bytes more")
	})
}

func TestPanics(t *testing.T) {
	test(t, "1,000 panics in a callback arrive in the caller", func() {
		e := newEngine(1)
		grown := growth(func() {
			s := must(e.NewSession())
			defer s.Close()
			defer func() { expect(recover() == "from the callback", "the panic is lost") }()
			_, _ = s.Generate(background, "a", tokens(4), func(string) bool { panic("from the callback") })
		})
		expect(grown < 1<<20, grown, " bytes more")
	})
}

func TestCancel(t *testing.T) {
	test(t, "a context cancels from another goroutine", func() {
		s := must(newEngine(1).NewSession())
		for i := 0; i < 20; i++ {
			ctx, cancel := context.WithCancel(background)
			first := make(chan struct{})
			go func() { <-first; cancel() }()
			var once sync.Once
			_, err := s.Generate(ctx, "the cat", tokens(200), func(string) bool {
				once.Do(func() { close(first); <-ctx.Done() })
				return true
			})
			expect(errors.Is(err, context.Canceled), err)
			expect(s.Truncate(0) == nil, "truncate")
		}
		ctx, cancel := context.WithTimeout(background, time.Nanosecond)
		defer cancel()
		<-ctx.Done()
		_, err := s.Generate(ctx, "the cat", tokens(200), nil)
		expect(errors.Is(err, context.DeadlineExceeded), err)
		_, err = s.Engine.Model.Runtime.Load(ctx, path("text"), nil)
		expect(errors.Is(err, context.DeadlineExceeded), err)
		expect(must(s.Generate(background, "the cat", tokens(3), nil)).Generated == 3, "it does not go on")
	})
}

func TestCancelWhileClosing(t *testing.T) {
	test(t, "cancel while it is closed", func() {
		e := newEngine(1)
		for i := 0; i < 200; i++ {
			s := must(e.NewSession())
			var all sync.WaitGroup
			for _, f := range []func(){s.Cancel, func() { s.Close() }, func() { s.Cancel() }} {
				all.Add(1)
				go func(f func()) { defer all.Done(); f() }(f)
			}
			_, _ = s.Generate(background, "a", tokens(2), nil)
			all.Wait()
			s.Close()
		}
	})
}

func TestCallbacksMayNotCall(t *testing.T) {
	test(t, "a callback may not call its engine, but may close sessions", func() {
		e := newEngine(2)
		s, other := must(e.NewSession()), must(e.NewSession())
		info := must(s.Generate(background, "the cat", tokens(4), func(string) bool {
			_, err := e.Step(0)
			var known *gptq.Error
			expect(errors.As(err, &known) && known.Status == gptq.ErrInvalidState, err)
			_, err = s.Generate(background, "x", tokens(1), nil)
			expect(errors.As(err, &known) && known.Status == gptq.ErrInvalidState, err)
			other.Close()
			return true
		}))
		expect(info.Generated == 4, info)
		must(e.NewSession()) // its place is free again
		must(s.Generate(background, "the cat", tokens(4), func(string) bool { return s.Close() == nil }))
		_, err := s.Info()
		expect(err != nil, "it is not closed")
	})
}

func TestThreads(t *testing.T) {
	test(t, "sessions of one engine on several goroutines", func() {
		e := newEngine(4)
		generate := func() string {
			s := must(e.NewSession())
			defer s.Close()
			return string(must(io.ReadAll(must(s.Stream(background, "the cat", tokens(20))))))
		}
		expected, results := generate(), make(chan string)
		for i := 0; i < 4; i++ {
			go func() { results <- generate() }()
		}
		for i := 0; i < 4; i++ {
			text := <-results
			expect(text == expected && text != "", text)
		}
	})
}

func TestClosedEngine(t *testing.T) {
	test(t, "a closed engine refuses, and the model outlives its handle", func() {
		m := textModel()
		e := must(m.NewEngine(gptq.EngineOptions{ContextTokens: 64}))
		m.Close()
		m.Runtime.Close()
		s := must(e.NewSession())
		must(s.Generate(background, "a", tokens(2), nil))
		e.Close()
		_, err := s.Info()
		expect(err != nil, "it is open")
		s.Close()
	})
}

func TestNumbersThatDoNotFit(t *testing.T) {
	test(t, "numbers that C cannot hold are refused, not cut off", func() {
		refused := func(err error) {
			var known *gptq.Error
			expect(errors.As(err, &known) && known.Status == gptq.ErrInvalidArgument, err)
		}
		m := textModel()
		_, err := m.NewEngine(gptq.EngineOptions{ContextTokens: 1<<32 + 64})
		refused(err)
		s := must(must(m.NewEngine(gptq.EngineOptions{ContextTokens: 64})).NewSession())
		must(s.Generate(background, "a", tokens(2), nil))
		before := must(s.Info()).Tokens
		refused(s.Start(gptq.Options{MaxTokens: -1}))
		refused(s.Start(gptq.Options{MaxTokens: 2, TopK: 1<<32 + 1}))
		refused(s.Truncate(1 << 32))
		refused(s.Truncate(-1))
		expect(must(s.Info()).Tokens == before && before > 0, before)
	})
}

func TestStreamLeftEarly(t *testing.T) {
	test(t, "an iterator left early ends the session, and so does a context", func() {
		s := must(must(textModel().NewEngine(gptq.EngineOptions{ContextTokens: 4096})).NewSession())
		stream := must(s.Stream(background, "the cat", tokens(0)))
		n := 0
		stream.All(func(piece string, err error) bool { n++; return false })
		expect(n == 1 && must(s.Info()).StopReason == gptq.StopCancelled, n)
		expect(s.Truncate(0) == nil, "truncate")
		ctx, cancel := context.WithCancel(background)
		stream = must(s.Stream(ctx, " and", tokens(0)))
		must(stream.Next())
		cancel()
		_, err := stream.Next()
		expect(errors.Is(err, context.Canceled) && must(s.Info()).StopReason == gptq.StopCancelled, err)
		expect(s.Truncate(0) == nil, "truncate")
		text := ""
		must(s.Stream(background, "again", tokens(4))).All(func(piece string, err error) bool { text += piece; return err == nil })
		expect(text != "", "nothing came")
	})
}

func TestForksAndSaves(t *testing.T) {
	test(t, "a fork and a restored save go on as the session does", func() {
		e := newEngine(3)
		s := must(e.NewSession())
		options := gptq.Options{MaxTokens: 24, Temperature: 0.9, Seed: 5, FrequencyPenalty: 0.2, Bias: map[int32]float32{300: -1}, Flags: gptq.GenIgnoreEOS}
		expect(s.Append("the cat", gptq.TextAddBOS) == nil && s.Start(options) == nil, "start")
		must(e.Step(0))
		must(e.Step(time.Microsecond))
		for _, kind := range []int{gptq.SaveReplay, gptq.SaveFull} {
			fork, saved := must(s.Fork()), must(s.Save(kind))
			restored, exact, err := e.Restore(saved)
			expect(err == nil && exact, err)
			expect(e.Finish() == nil, "finish")
			text := must(fork.ReadText())
			expect(text != "" && must(restored.ReadText()) == text, text)
			restored.Close()
			fork.Close()
			saved[len(saved)/2] ^= 1
			_, _, err = e.Restore(saved)
			var known *gptq.Error
			expect(errors.As(err, &known) && known.Status == gptq.ErrChecksum && known.Site != "", err)
		}
		_, _, err := e.Restore(nil)
		expect(err != nil, "nothing is no save")
	})
}

func TestSpeculation(t *testing.T) {
	test(t, "a draft model and a prediction do not change the text", func() {
		e := newEngine(1)
		text := func(flags uint32, prediction string) (text string) {
			s := must(e.NewSession())
			defer s.Close()
			expect(s.SetPrediction(prediction) == nil, "prediction")
			options := gptq.Options{MaxTokens: 60, Flags: gptq.GenIgnoreEOS | flags}
			must(s.Generate(background, "the cat", options, func(piece string) bool { text += piece; return true }))
			return
		}
		plain := text(0, "")
		expect(e.SetDraft(e.Model) == nil, "draft")
		expect(text(gptq.GenSpeculate, plain) == plain, "with both")
		expect(e.SetDraft(nil) == nil, "no draft")
		expect(text(gptq.GenSpeculate, "") == plain, "with neither")
	})
}

func TestConstraints(t *testing.T) {
	test(t, "constraints", func() {
		s := must(newEngine(1).NewSession())
		m := s.Engine.Model
		choice := must(m.NewChoice("yes", "no", "may \"be\""))
		generate := func(c *gptq.Constraint) (text string) {
			must(s.Generate(background, "well ", gptq.Options{Constraint: c, MaxTokens: 30}, func(piece string) bool { text += piece; return true }))
			return
		}
		text := generate(choice)
		expect(text == "yes" || text == "no" || text == "may \"be\"", text)
		text = generate(must(m.NewRegex("[a-c]{3}z")))
		expect(len(text) == 4 && strings.Trim(text[:3], "abc") == "" && text[3] == 'z', text)
		_, err := m.NewRegex("ab(c")
		var known *gptq.Error
		expect(errors.As(err, &known) && known.Status == gptq.ErrInvalidArgument && known.Site != "", err)
		choice.Close()
		expect(s.Start(gptq.Options{Constraint: choice}) != nil, "a closed constraint is none")
	})
}

type broken struct{ panics bool }

var errBroken = errors.New("disk on fire")

func (b broken) fail() (int, error) {
	if b.panics {
		panic("from the stream")
	}
	return 0, errBroken
}
func (b broken) ReadAt([]byte, int64) (int, error) { return b.fail() }
func (b broken) Write([]byte) (int, error)         { return b.fail() }

func TestStreamsThatFail(t *testing.T) {
	test(t, "a stream's error is what the call's unwraps to, and its panic goes on above", func() {
		s := must(newEngine(2).NewSession())
		expect(s.Append("a", 0) == nil, "append")
		_, _, err := s.Engine.RestoreFrom(gptq.FromReaderAt(broken{}, 4096))
		expect(errors.Is(err, errBroken), err)
		_, err = s.Engine.Model.Runtime.LoadFrom(background, gptq.FromReaderAt(broken{}, 4096), gptq.LoadOptions{})
		expect(errors.Is(err, errBroken), err)
		err = s.SaveTo(broken{}, gptq.SaveReplay)
		expect(errors.Is(err, errBroken) && strings.Contains(err.Error(), "disk on fire"), err)
		_, err = s.Engine.Model.Runtime.LoadFrom(background, gptq.Source{}, gptq.LoadOptions{})
		expect(err != nil && strings.Contains(err.Error(), "empty"), err)
		for _, f := range []func(){
			func() { _ = s.SaveTo(broken{true}, gptq.SaveReplay) },
			func() { _, _, _ = s.Engine.RestoreFrom(gptq.FromReaderAt(broken{true}, 4096)) },
		} {
			func() {
				defer func() { expect(recover() == "from the stream", "the panic is lost") }()
				f()
			}()
		}
		must(s.Generate(background, " b", tokens(2), nil))
	})
}

func TestQuantizeCancelled(t *testing.T) {
	test(t, "progress and a context cancel quantizing", func() {
		r := must(gptq.NewRuntime(gptq.RuntimeOptions{}))
		o := gptq.QuantizeOptions{Rows: 4, RowTokens: 64, Progress: func(gptq.Phase, float64) bool { return false }}
		err := r.Quantize(background, path("text"), path("never"), o)
		expect(errors.Is(err, context.Canceled), err)
		ctx, cancel := context.WithCancel(background)
		o.Progress = func(phase gptq.Phase, done float64) bool { cancel(); return true }
		err = r.Quantize(ctx, path("text"), path("never"), o)
		expect(err == context.Canceled, err)
		_, err = os.Stat(path("never"))
		expect(errors.Is(err, os.ErrNotExist), err)
		os.RemoveAll(path("never") + ".work")
	})
}

func TestLog(t *testing.T) {
	test(t, "the log gets what has no other way, and its panics go nowhere", func() {
		var log bytes.Buffer
		r := must(gptq.NewRuntime(gptq.RuntimeOptions{Threads: 1, Log: func(level int, text string) {
			fmt.Fprintln(&log, level, text)
			panic("from the log")
		}}))
		m := must(r.Load(background, path("text"), nil))
		_, err := m.Detokenize([]int32{9999}, 0)
		expect(err != nil && strings.Contains(log.String(), "9999"), log.String())
		log.Reset()
		r.Close() // the model goes on, and logs
		_, err = m.Detokenize([]int32{9999}, 0)
		expect(err != nil && strings.Contains(log.String(), "9999"), log.String())
	})
}

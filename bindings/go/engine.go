// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Engine is the KV memory and the scheduler of some sessions.
type Engine struct {
	Model   *Model
	pointer *C.gptq_engine
	nBest   int
	mutex   sync.Mutex
	inside  atomic.Uintptr // the thread that is in C, or 0
	guard   sync.Mutex     // of dead
	dead    []func()       // what waits to be destroyed until nobody is inside
}

// enter takes the engine. It fails inside a callback of the engine, and when the engine is closed.
func (e *Engine) enter() error {
	runtime.LockOSThread() // callbacks come on this thread
	if e.inside.Load() == uintptr(C.gptq_go_thread()) {
		runtime.UnlockOSThread()
		return invalid("the engine is busy: a callback may not call it")
	}
	e.mutex.Lock()
	if e.pointer == nil {
		e.mutex.Unlock()
		runtime.UnlockOSThread()
		e.bury()
		return invalid("the engine is closed")
	}
	e.inside.Store(uintptr(C.gptq_go_thread()))
	return nil
}

func (e *Engine) leave() {
	e.inside.Store(0)
	e.mutex.Unlock()
	runtime.UnlockOSThread()
	e.bury()
}

func (e *Engine) destroy(f func()) {
	e.guard.Lock()
	e.dead = append(e.dead, f)
	e.guard.Unlock()
	e.bury()
}

// bury destroys what waits for it, unless somebody is inside, who will do it then.
func (e *Engine) bury() {
	for e.waiting() && e.mutex.TryLock() {
		e.guard.Lock()
		dead := e.dead
		e.dead = nil
		e.guard.Unlock()
		for _, f := range dead {
			f()
		}
		e.mutex.Unlock()
	}
}

func (e *Engine) waiting() bool {
	e.guard.Lock()
	defer e.guard.Unlock()
	return len(e.dead) > 0
}

// Close ends the engine's work, and what its sessions are asked for from now on fails. It may be called at any time.
func (e *Engine) Close() error {
	runtime.SetFinalizer(e, nil)
	e.destroy(func() {
		C.gptq_engine_destroy(e.pointer) // sessions hold references
		e.pointer = nil
	})
	return nil
}

// Step is what a step did. NextQuantum is the smallest budget that lets the next step make progress.
type Step struct {
	More                             bool
	SessionsActive, SessionsReadable int
	Used, NextQuantum                time.Duration
	TokensPrefilled, TokensGenerated int
}

// Step computes for about that long on all started sessions together; negative: until nothing is left.
func (e *Engine) Step(budget time.Duration) (Step, error) {
	us := budget.Microseconds()
	if budget < 0 || us >= BudgetUnlimited {
		us = BudgetUnlimited
	}
	var i C.gptq_step_info
	i.struct_size = sizeOf(&i)
	if err := e.enter(); err != nil {
		return Step{}, err
	}
	defer e.leave()
	var status C.gptq_status
	err := call(func(*C.gptq_error) C.gptq_status {
		status = C.gptq_engine_step(e.pointer, C.uint32_t(us), &i)
		return status
	})
	return Step{
		More: status == C.gptq_status(More), SessionsActive: int(i.sessions_active), SessionsReadable: int(i.sessions_readable),
		Used: time.Duration(i.used_us) * time.Microsecond, NextQuantum: time.Duration(i.next_quantum_us) * time.Microsecond,
		TokensPrefilled: int(i.tokens_prefilled), TokensGenerated: int(i.tokens_generated),
	}, err
}

// Finish steps until nothing is left to do.
func (e *Engine) Finish() error {
	_, err := e.Step(-1)
	return err
}

// SetDraft lets a smaller model of the same runtime with the same tokens guess for generations with GenSpeculate; nil: none does.
func (e *Engine) SetDraft(m *Model) error {
	defer runtime.KeepAlive(m)
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	var draft *C.gptq_model
	if m != nil {
		draft = m.pointer
	}
	return call(func(err *C.gptq_error) C.gptq_status { return C.gptq_engine_set_draft(e.pointer, draft, nil, err) })
}

// create makes a session that f puts where it is told.
func (e *Engine) create(f func(out **C.gptq_session, err *C.gptq_error) C.gptq_status) (*Session, error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	var out *C.gptq_session
	if err := call(func(err *C.gptq_error) C.gptq_status { return f(&out, err) }); err != nil {
		return nil, err
	}
	s := &Session{Engine: e, pointer: out}
	runtime.SetFinalizer(s, (*Session).Close)
	return s, nil
}

// NewSession fails when MaxSessions exist.
func (e *Engine) NewSession() (*Session, error) {
	return e.create(func(out **C.gptq_session, err *C.gptq_error) C.gptq_status {
		return C.gptq_session_create(e.pointer, out, err)
	})
}

// Restore makes a session of what Session.Save gave, which goes on where that stood. exact is false where its numbers may differ in their
// last digits: another kernel, context length or device than when it was saved.
func (e *Engine) Restore(saved []byte) (s *Session, exact bool, err error) {
	var status C.gptq_status
	s, err = e.create(func(out **C.gptq_session, err *C.gptq_error) C.gptq_status {
		status = C.gptq_session_restore(e.pointer, unsafe.Pointer(first(saved)), C.size_t(len(saved)), out, err)
		return status
	})
	return s, status == C.gptq_status(Ok), err
}

// RestoreFrom does the same of what Session.SaveTo wrote.
func (e *Engine) RestoreFrom(src Source) (s *Session, exact bool, err error) {
	var a arena
	defer a.free()
	var status C.gptq_status
	c := &callbacks{}
	c.open()
	from, err := src.struct_(&a, c)
	if err == nil {
		s, err = e.create(func(out **C.gptq_session, err *C.gptq_error) C.gptq_status {
			status = C.gptq_session_restore_from(e.pointer, from, out, err)
			return status
		})
	}
	return s, status == C.gptq_status(Ok), c.close(err)
}

// Embed gives vectors of texts, made in free places of sessions; it steps the engine. pooling is PoolLast, PoolMean, or PoolNone: pooling and
// normalizing are as the model's files say, else the last token's, normalized.
func (e *Engine) Embed(texts []string, pooling int32, normalize bool) ([][]float32, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	var a arena
	defer a.free()
	list, n := a.stringList(texts)
	width := e.Model.Info().Width
	values, flags := make([]float32, len(texts)*width), C.uint32_t(0)
	if normalize {
		flags = EmbedNormalize
	}
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	err := call(func(err *C.gptq_error) C.gptq_status {
		return C.gptq_embed(e.pointer, list, n, C.int32_t(pooling), flags, (*C.float)(first(values)), err)
	})
	if err != nil {
		return nil, err
	}
	vectors := make([][]float32, len(texts))
	for i := range vectors {
		vectors[i] = values[i*width : (i+1)*width : (i+1)*width]
	}
	return vectors, nil
}

// Readable names the sessions that have something unread, or have ended since they were looked at; each at most once a step.
func (e *Engine) Readable() ([]SessionID, error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	var ids []SessionID
	for {
		p := C.gptq_engine_next_readable(e.pointer)
		if p == nil {
			return ids, nil
		}
		ids = append(ids, SessionID(uintptr(unsafe.Pointer(p))))
	}
}

// MemoryInfo is what the engine and its runtime hold now.
type MemoryInfo struct {
	PageTokens                                   int
	KVPagesTotal, KVPagesUsed                    uint64
	HostBytes, HostPeak, DeviceBytes, DevicePeak uint64
}

// Memory asks for it.
func (e *Engine) Memory() (MemoryInfo, error) {
	var i C.gptq_memory_info
	i.struct_size = sizeOf(&i)
	if err := e.enter(); err != nil {
		return MemoryInfo{}, err
	}
	defer e.leave()
	err := call(func(*C.gptq_error) C.gptq_status { return C.gptq_engine_memory(e.pointer, &i) })
	return MemoryInfo{
		PageTokens: int(i.page_tokens), KVPagesTotal: uint64(i.kv_pages_total), KVPagesUsed: uint64(i.kv_pages_used), HostBytes: uint64(i.host_bytes),
		HostPeak: uint64(i.host_peak), DeviceBytes: uint64(i.device_bytes), DevicePeak: uint64(i.device_peak),
	}, err
}

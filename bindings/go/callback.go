// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import (
	"io"
	"runtime/cgo"
	"sync"
	"unsafe"
)

// callbacks are what C calls while one of our calls is in it. A panic stops that call and goes on above it.
type callbacks struct {
	text     func(string) bool
	progress func(Phase, float64) bool
	report   func(Report)
	source   Source
	writer   io.Writer
	handle   cgo.Handle
	user     unsafe.Pointer
	guard    sync.Mutex // of what follows: a source may be read by several threads
	panicked any
	failed   error
}

func (c *callbacks) open() unsafe.Pointer {
	c.handle = cgo.NewHandle(c)
	c.user = C.gptq_go_user(C.uintptr_t(c.handle))
	return c.user
}

// close is for after the call, which gave err: it adds what a callback's own error was.
func (c *callbacks) close(err error) error {
	c.handle.Delete()
	if c.panicked != nil {
		panic(c.panicked)
	}
	if e, ok := err.(*Error); ok && c.failed != nil {
		e.Message, e.Err = e.Message+": "+c.failed.Error(), c.failed
	}
	return err
}

func (c *callbacks) ended() bool {
	c.guard.Lock()
	defer c.guard.Unlock()
	return c.panicked != nil || c.failed != nil
}

// fail keeps the first error.
func (c *callbacks) fail(err error) {
	c.guard.Lock()
	defer c.guard.Unlock()
	if c.failed == nil {
		c.failed = err
	}
}

// run calls f, unless a callback panicked before; false if it did.
func run(handle C.uintptr_t, f func(*callbacks) bool) (more bool) {
	c := cgo.Handle(handle).Value().(*callbacks)
	if c.ended() {
		return false
	}
	defer func() {
		if p := recover(); p != nil {
			c.guard.Lock()
			c.panicked, more = p, false
			c.guard.Unlock()
		}
	}()
	return f(c)
}

func stop(more bool) C.int32_t {
	if more {
		return 0
	}
	return 1
}

//export goText
func goText(handle C.uintptr_t, text *C.char, size C.size_t) C.int32_t {
	return stop(run(handle, func(c *callbacks) bool { return c.text(C.GoStringN(text, C.int(size))) }))
}

//export goProgress
func goProgress(handle C.uintptr_t, phase, permille C.uint32_t) C.int32_t {
	return stop(run(handle, func(c *callbacks) bool { return c.progress(Phase(phase), float64(permille)/1000) }))
}

//export goReport
func goReport(handle C.uintptr_t, report *C.gptq_quantize_report) {
	run(handle, func(c *callbacks) bool {
		c.report(Report{
			Name: C.GoStringN(report.name, C.int(report.name_size)), Bits: int(report.bits), GroupSize: int(report.group_size),
			Error: float64(report.error),
		})
		return true
	})
}

const eio = -5

//export goSize
func goSize(handle C.uintptr_t) C.int64_t {
	return C.int64_t(cgo.Handle(handle).Value().(*callbacks).source.length)
}

//export goRead
func goRead(handle C.uintptr_t, offset C.uint64_t, to unsafe.Pointer, size C.size_t) C.int64_t {
	n := 0
	read := run(handle, func(c *callbacks) bool {
		var err error
		n, err = io.NewSectionReader(c.source.reader, 0, c.source.length).ReadAt(unsafe.Slice((*byte)(to), int(size)), int64(offset))
		if err != nil && err != io.EOF {
			c.fail(err)
			return false
		}
		return true
	})
	if !read {
		return eio
	}
	return C.int64_t(n)
}

//export goWrite
func goWrite(handle C.uintptr_t, bytes unsafe.Pointer, size C.size_t) C.int32_t {
	return stop(run(handle, func(c *callbacks) bool {
		if _, err := c.writer.Write(unsafe.Slice((*byte)(bytes), int(size))); err != nil {
			c.fail(err)
			return false
		}
		return true
	}))
}

//export goFree
func goFree(handle C.uintptr_t) { cgo.Handle(handle).Delete() }

// logger is kept until C calls goFree.
type logger func(level int, text string)

//export goLog
func goLog(handle C.uintptr_t, level C.int32_t, text *C.char, size C.size_t) {
	log := cgo.Handle(handle).Value().(logger)
	defer func() { _ = recover() }() // from any thread: there is nobody above
	log(int(level), C.GoStringN(text, C.int(size)))
}

// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// callbacks are what C calls while one of our calls is in it. A panic stops that call and goes on above it.
type callbacks struct {
	text     func(string) bool
	progress func(Phase, float64) bool
	report   func(Report)
	panicked any
	handle   cgo.Handle
}

func (c *callbacks) open() unsafe.Pointer {
	c.handle = cgo.NewHandle(c)
	return C.gptq_go_user(C.uintptr_t(c.handle))
}

// close is for after the call.
func (c *callbacks) close() {
	c.handle.Delete()
	if c.panicked != nil {
		panic(c.panicked)
	}
}

// run calls f, unless a callback panicked before; false if it did.
func run(handle C.uintptr_t, f func(*callbacks) bool) (more bool) {
	c := cgo.Handle(handle).Value().(*callbacks)
	if c.panicked != nil {
		return false
	}
	defer func() {
		if p := recover(); p != nil {
			c.panicked, more = p, false
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

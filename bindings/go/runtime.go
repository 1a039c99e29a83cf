// SPDX-License-Identifier: Apache-2.0

// Package gptq runs GPTQ-quantized language models through libgptq.
//
// Runtime and Model may be used by any goroutine. An Engine with its Sessions is used by one at a time; a mutex sees to that. Close
// releases; what is not closed is released when the garbage collector finds it.
package gptq

// #include "shim.h"
import "C"

import (
	"context"
	"runtime"
	"runtime/cgo"
)

// RuntimeOptions say what a runtime may use. Zero means defaults.
type RuntimeOptions struct {
	Threads      int    // 0 = one for each physical core
	HostBytesMax uint64 // refuse to hold more; 0 = no limit
	LogLevel     int
	Log          func(level int, text string) // from any thread that is inside the library; a panic in it is dropped
}

// Runtime is what every other object uses: threads, memory, log.
type Runtime struct {
	pointer *C.gptq_runtime
}

// NewRuntime starts one.
func NewRuntime(o RuntimeOptions) (*Runtime, error) {
	var a arena
	defer a.free()
	d := zeroed[C.gptq_runtime_desc](&a)
	var n counts
	d.struct_size, d.threads, d.host_bytes_max, d.log_level = sizeOf(d), n.u32("Threads", o.Threads), C.uint64_t(o.HostBytesMax), C.int32_t(o.LogLevel)
	if n.err != nil {
		return nil, n.err
	}
	r := &Runtime{}
	if o.Log != nil {
		log := cgo.NewHandle(logger(o.Log))
		defer func() {
			if r.pointer == nil {
				log.Delete()
			}
		}()
		d.log_user = C.gptq_go_user(C.uintptr_t(log))
		d.log, d.user_free, d.user = C.gptq_log_fn(C.gptq_go_log), C.gptq_user_free_fn(C.gptq_go_free), d.log_user
	}
	if err := call(func(e *C.gptq_error) C.gptq_status { return C.gptq_runtime_create(d, &r.pointer, e) }); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(r, (*Runtime).Close)
	return r, nil
}

// Close drops the reference; models keep what they need.
func (r *Runtime) Close() error {
	if r.pointer != nil {
		runtime.SetFinalizer(r, nil)
		C.gptq_runtime_release(r.pointer)
		r.pointer = nil
	}
	return nil
}

// Kernels names the kernel levels in use.
func (r *Runtime) Kernels() string {
	defer runtime.KeepAlive(r)
	return C.GoString(C.gptq_runtime_kernels(r.pointer))
}

// Phase is PhaseLoad, PhaseSample or PhaseQuantize.
type Phase uint32

// Progress gets how much of a phase is done, 0 to 1; false cancels.
type Progress func(phase Phase, done float64) bool

func within(ctx context.Context, progress Progress) func(Phase, float64) bool {
	return func(phase Phase, done float64) bool {
		return ctx.Err() == nil && (progress == nil || progress(phase, done))
	}
}

// because gives ctx's error where that is why the call was cancelled.
func because(ctx context.Context, err error) error {
	if e, ok := err.(*Error); ok && e.Status == ErrCancelled && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Load loads a model file. Cancelling ctx ends it, with ctx's error; progress may be nil.
func (r *Runtime) Load(ctx context.Context, path string, progress Progress) (*Model, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(r)
	c := &callbacks{progress: within(ctx, progress)}
	p := zeroed[C.gptq_model_params](&a)
	p.struct_size, p.progress, p.progress_user = sizeOf(p), C.gptq_progress_fn(C.gptq_go_progress), c.open()
	name, size := a.text(path)
	m := &Model{Runtime: r}
	err := call(func(e *C.gptq_error) C.gptq_status { return C.gptq_model_load(r.pointer, name, size, p, &m.pointer, e) })
	if err == nil {
		runtime.SetFinalizer(m, (*Model).Close)
	}
	c.close()
	if err != nil {
		return nil, because(ctx, err)
	}
	return m, nil
}

// QuantizeOptions say how to quantize. All zero: 4 bits in groups of 128, calibrated with text that the model writes itself.
type QuantizeOptions struct {
	Bits, GroupSize, HeadBits int
	Text                      string // for calibration
	Rows, RowTokens           int
	Replace                   bool // an existing file
	Progress                  Progress
	Report                    func(Report)
}

// Report is what became of one matrix. Error is the squared error of its output, as a part of the squared output.
type Report struct {
	Name            string
	Bits, GroupSize int
	Error           float64
}

// Quantize makes a model with few bits of one with 16 or 32. What is done is kept, so that the same call goes on after ctx is cancelled.
func (r *Runtime) Quantize(ctx context.Context, source, target string, o QuantizeOptions) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(r)
	c := &callbacks{progress: within(ctx, o.Progress), report: o.Report}
	src, p := zeroed[C.gptq_source](&a), zeroed[C.gptq_quantize_params](&a)
	src.struct_size, p.struct_size = sizeOf(src), sizeOf(p)
	src.path, src.path_size = a.text(source)
	var n counts
	p.defaults.bits, p.defaults.group_size = n.u32("Bits", o.Bits), n.i32("GroupSize", o.GroupSize)
	p.head_bits, p.rows, p.row_tokens = n.u32("HeadBits", o.HeadBits), n.u32("Rows", o.Rows), n.u32("RowTokens", o.RowTokens)
	if n.err != nil {
		return n.err
	}
	if o.Text != "" {
		p.text, p.text_size = a.text(o.Text)
	}
	if o.Replace {
		p.flags = QuantizeReplace
	}
	name, size := a.text(target)
	user := c.open()
	p.progress, p.progress_user = C.gptq_progress_fn(C.gptq_go_progress), user
	if o.Report != nil {
		p.report, p.report_user = C.gptq_quantize_report_fn(C.gptq_go_report), user
	}
	err := call(func(e *C.gptq_error) C.gptq_status { return C.gptq_quantize(r.pointer, src, name, size, p, e) })
	c.close()
	return because(ctx, err)
}

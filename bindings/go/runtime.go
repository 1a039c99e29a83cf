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
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"runtime/cgo"
	"time"
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
	d.log = C.gptq_log_fn(C.gptq_go_log) // also without Log: it keeps the messages of functions that have no gptq_error
	if o.Log != nil {
		log := cgo.NewHandle(logger(o.Log))
		defer func() {
			if r.pointer == nil {
				log.Delete()
			}
		}()
		d.log_user = C.gptq_go_user(C.uintptr_t(log))
		d.user_free, d.user = C.gptq_user_free_fn(C.gptq_go_free), d.log_user
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

// Phase is PhaseLoad, PhaseSample, PhaseMeasure or PhaseQuantize.
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
	name, size := a.text(path)
	return r.load(ctx, LoadOptions{Progress: progress}, &callbacks{}, func(c *callbacks, p *C.gptq_model_params, m *Model) error {
		c.open()
		p.progress_user = c.user
		return c.close(call(func(e *C.gptq_error) C.gptq_status { return C.gptq_model_load(r.pointer, name, size, p, &m.pointer, e) }))
	})
}

// LoadOptions say where a model's layers go: to the CPU, unless CUDA is set.
type LoadOptions struct {
	Progress       Progress // may be nil
	CUDA           bool
	DeviceOrdinal  int
	DeviceLayers   int    // the last so many, and the head, go to the GPU; 0 = all that fit, negative = none
	DeviceBytesMax uint64 // hold no more there, engines included; 0 = what is free
}

func (o *LoadOptions) params(a *arena) (*C.gptq_model_params, error) {
	var n counts
	p := zeroed[C.gptq_model_params](a)
	p.struct_size, p.device_ordinal, p.device_bytes_max = sizeOf(p), n.i32("DeviceOrdinal", o.DeviceOrdinal), C.uint64_t(o.DeviceBytesMax)
	if o.CUDA {
		p.device_kind = DeviceCUDA
	}
	if p.device_layers = math.MaxUint32; o.DeviceLayers >= 0 {
		p.device_layers = n.u32("DeviceLayers", o.DeviceLayers)
	}
	return p, n.err
}

// LoadFrom loads a model from memory, from an io.ReaderAt or from a part of a file, and to a GPU.
func (r *Runtime) LoadFrom(ctx context.Context, src Source, o LoadOptions) (*Model, error) {
	return r.load(ctx, o, &callbacks{}, func(c *callbacks, p *C.gptq_model_params, m *Model) error {
		return src.read(c, func(from *C.gptq_source, e *C.gptq_error) C.gptq_status {
			p.progress_user = c.user
			return C.gptq_model_load_from(r.pointer, from, p, &m.pointer, e)
		})
	})
}

func (r *Runtime) load(ctx context.Context, o LoadOptions, c *callbacks, f func(*callbacks, *C.gptq_model_params, *Model) error) (*Model, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(r)
	c.progress = within(ctx, o.Progress)
	p, err := o.params(&a)
	if err != nil {
		return nil, err
	}
	p.progress = C.gptq_progress_fn(C.gptq_go_progress)
	m := &Model{Runtime: r}
	runtime.SetFinalizer(m, (*Model).Close) // also where a callback panics
	if err := f(c, p, m); err != nil {
		return nil, because(ctx, err)
	}
	return m, nil
}

// MemoryEstimate is what a model, and an engine, would hold.
type MemoryEstimate struct {
	Fits                                          bool // within HostBytesMax beside what is held already, and within every GPU's budget
	HostWeights, HostKV, HostScratch, HostLoading uint64
	DeviceWeights, DeviceKV, DeviceScratch        uint64
	DeviceLayers                                  int
}

// Estimate says what loading, and one engine (nil: none), would hold.
func (r *Runtime) Estimate(src Source, o LoadOptions, engine *EngineOptions) (MemoryEstimate, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(r)
	p, err := o.params(&a)
	var e *C.gptq_engine_params
	if engine != nil && err == nil {
		e, err = engine.params(&a)
	}
	if err != nil {
		return MemoryEstimate{}, err
	}
	var i C.gptq_memory_estimate
	i.struct_size = sizeOf(&i)
	err = src.read(&callbacks{}, func(from *C.gptq_source, err *C.gptq_error) C.gptq_status {
		return C.gptq_model_estimate(r.pointer, from, p, e, &i, err)
	})
	return MemoryEstimate{
		Fits: i.fits != 0, HostWeights: uint64(i.host_weights), HostKV: uint64(i.host_kv), HostScratch: uint64(i.host_scratch),
		HostLoading: uint64(i.host_load_peak), DeviceWeights: uint64(i.device_weights), DeviceKV: uint64(i.device_kv),
		DeviceScratch: uint64(i.device_scratch), DeviceLayers: int(i.device_layers),
	}, err
}

// LoadBackend loads the CUDA backend: where the system's loader has it (path ""), or that file.
func (r *Runtime) LoadBackend(path string) error {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(r)
	at, n := a.text(path)
	if path == "" {
		at = nil
	}
	return call(func(e *C.gptq_error) C.gptq_status { return C.gptq_runtime_load_backend(r.pointer, at, n, e) })
}

// Device is a GPU. Capability is 90 for compute capability 9.0.
type Device struct {
	Ordinal               int
	Name                  string
	Capability            int
	BytesTotal, BytesFree uint64
	UUID                  [16]byte
}

// Devices lists the GPUs; it fails where no backend is loaded.
func (r *Runtime) Devices() ([]Device, error) {
	defer runtime.KeepAlive(r)
	var all []Device
	for {
		var i C.gptq_device_info
		i.struct_size = sizeOf(&i)
		err := call(func(e *C.gptq_error) C.gptq_status {
			return C.gptq_runtime_device(r.pointer, C.uint32_t(len(all)), &i, e)
		})
		if errors.Is(err, fs.ErrNotExist) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		d := Device{
			Ordinal: int(i.ordinal), Name: C.GoString(&i.name[0]), Capability: int(i.capability), BytesTotal: uint64(i.bytes_total), BytesFree: uint64(i.bytes_free),
		}
		for at := range d.UUID {
			d.UUID[at] = byte(i.uuid[at])
		}
		all = append(all, d)
	}
}

// Version is the library's: "0.1.0".
func Version() string {
	n := uint32(C.gptq_version())
	return fmt.Sprintf("%d.%d.%d", n>>16, n>>8&255, n&255)
}

// BuildInfo is one line: version, compiler, kernel levels compiled in.
func BuildInfo() string { return C.GoString(C.gptq_build_info()) }

// QuantizeOptions say how to quantize. All zero: 4 bits in groups of 128, calibrated with text that the model writes itself.
type QuantizeOptions struct {
	Bits, GroupSize          int
	Order                    int32   // OrderGroupAware, OrderNatural or OrderAct
	Asymmetric, StaticGroups bool    // with zero points; with OrderAct: groups as the columns stand
	Damp                     float64 // of the mean of the Hessian's diagonal; 0 = 0.01
	HeadBits, HeadGroupSize  int
	FileBytesMax             uint64  // instead of Bits a budget: of the whole file,
	BitsPerWeight            float64 // or the mean over the layers' matrices; 0 = none
	Text                     string  // for calibration: text or tokens
	Tokens                   []int32
	Rows, RowTokens          int
	FirstTokenWeight         float64 // how many tokens the first of a row counts for; 0 = 32
	Aim, Reference           bool    // aim at the original model's outputs; the algorithm as published, nothing more
	Replace                  bool    // an existing file
	Progress                 Progress
	Report                   func(Report)
}

func (o *QuantizeOptions) params(a *arena) (*C.gptq_quantize_params, error) {
	p := zeroed[C.gptq_quantize_params](a)
	p.struct_size = sizeOf(p)
	var n counts
	p.defaults.bits, p.defaults.group_size = n.u32("Bits", o.Bits), n.i32("GroupSize", o.GroupSize)
	p.head_bits, p.rows, p.row_tokens = n.u32("HeadBits", o.HeadBits), n.u32("Rows", o.Rows), n.u32("RowTokens", o.RowTokens)
	if o.Text != "" {
		p.text, p.text_size = a.text(o.Text)
	}
	for flag, wanted := range map[C.uint32_t]bool{QuantizeReplace: o.Replace, QuantizeAim: o.Aim, QuantizeReference: o.Reference} {
		if wanted {
			p.flags |= flag
		}
	}
	for flag, wanted := range map[C.uint32_t]bool{QuantAsymmetric: o.Asymmetric, QuantStaticGroups: o.StaticGroups} {
		if wanted {
			p.defaults.flags |= flag
		}
	}
	p.defaults.order, p.defaults.damp = C.int32_t(o.Order), C.double(o.Damp)
	p.head_group_size, p.first_token_weight = n.i32("HeadGroupSize", o.HeadGroupSize), C.double(o.FirstTokenWeight)
	p.file_bytes_max, p.bits_per_weight = C.uint64_t(o.FileBytesMax), C.double(o.BitsPerWeight)
	if len(o.Tokens) > 0 {
		list, tokens := array[C.gptq_token](a, len(o.Tokens))
		for i, token := range o.Tokens {
			tokens[i] = C.gptq_token(token)
		}
		p.tokens, p.n_tokens = list, C.size_t(len(tokens))
	}
	return p, n.err
}

// QuantizeEstimate is what Quantize would take.
type QuantizeEstimate struct {
	Modules                         int
	FileBytes, WorkBytes, HostBytes uint64
	Duration                        time.Duration
}

// QuantizeEstimate says what Quantize with these options would take.
func (r *Runtime) QuantizeEstimate(src Source, o QuantizeOptions) (QuantizeEstimate, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(r)
	p, err := o.params(&a)
	if err != nil {
		return QuantizeEstimate{}, err
	}
	var i C.gptq_quantize_estimate
	i.struct_size = sizeOf(&i)
	err = src.read(&callbacks{}, func(from *C.gptq_source, e *C.gptq_error) C.gptq_status {
		return C.gptq_quantize_estimate_get(r.pointer, from, p, &i, e)
	})
	return QuantizeEstimate{
		Modules: int(i.n_modules), FileBytes: uint64(i.file_bytes), WorkBytes: uint64(i.work_bytes), HostBytes: uint64(i.host_bytes),
		Duration: time.Duration(float64(i.seconds) * float64(time.Second)),
	}, err
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
	src := zeroed[C.gptq_source](&a)
	src.struct_size = sizeOf(src)
	src.path, src.path_size = a.text(source)
	p, err := o.params(&a)
	if err != nil {
		return err
	}
	name, size := a.text(target)
	user := c.open()
	p.progress, p.progress_user = C.gptq_progress_fn(C.gptq_go_progress), user
	if o.Report != nil {
		p.report, p.report_user = C.gptq_quantize_report_fn(C.gptq_go_report), user
	}
	err = call(func(e *C.gptq_error) C.gptq_status { return C.gptq_quantize(r.pointer, src, name, size, p, e) })
	return because(ctx, c.close(err))
}

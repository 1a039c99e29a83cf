// SPDX-License-Identifier: Apache-2.0

package gptq

// #cgo pkg-config: gptq
// #include "shim.h"
import "C"

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"strings"
	"unsafe"
)

// Status is a status code of the C API.
type Status int32

func (s Status) String() string { return C.GoString(C.gptq_status_name(C.gptq_status(s))) }

// Error is what libgptq reports. Site is where it failed: quote it in bug reports.
type Error struct {
	Status        Status
	Message, Site string
	Offset        uint64
	OSCode        int64
	Err           error // of an io.ReaderAt or io.Writer, where that is why
}

// Unwrap gives the error of the io.ReaderAt or io.Writer that the call used.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) Error() string { return fmt.Sprintf("gptq: %s (%s)", e.Message, e.Status) }

// Is makes errors.Is(err, fs.ErrNotExist) and errors.Is(err, context.Canceled) true where they should be.
func (e *Error) Is(target error) bool {
	return target == fs.ErrNotExist && e.Status == ErrNotFound || target == context.Canceled && e.Status == ErrCancelled
}

// invalid is for calls that are refused before they reach C.
func invalid(message string) error { return &Error{Status: ErrInvalidState, Message: message} }

// counts makes C's numbers of Go's, and keeps the first that does not fit.
type counts struct{ err error }

func (c *counts) refuse(name string, n int) {
	if c.err == nil {
		c.err = &Error{Status: ErrInvalidArgument, Message: fmt.Sprintf("%s: %d does not fit", name, n)}
	}
}

func (c *counts) u32(name string, n int) C.uint32_t {
	if n < 0 || uint64(n) > math.MaxUint32 {
		c.refuse(name, n)
	}
	return C.uint32_t(n)
}

func (c *counts) u64(name string, n int64) C.uint64_t {
	if n < 0 {
		c.refuse(name, int(n))
	}
	return C.uint64_t(n)
}

func (c *counts) i32(name string, n int) C.int32_t {
	if n < math.MinInt32 || n > math.MaxInt32 {
		c.refuse(name, n)
	}
	return C.int32_t(n)
}

// call calls f(err). A function that has no err sends its message to the log, on this thread, before it returns.
func call(f func(err *C.gptq_error) C.gptq_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e := C.gptq_error{struct_size: C.uint32_t(unsafe.Sizeof(C.gptq_error{}))}
	status := f(&e)
	if status >= 0 {
		return nil
	}
	if e.status == 0 {
		told := &Error{Status: Status(status), Message: C.GoString(C.gptq_go_told())}
		if at := strings.LastIndex(told.Message, " ["); at >= 0 && strings.HasSuffix(told.Message, "]") {
			told.Message, told.Site = told.Message[:at], told.Message[at+2:len(told.Message)-1]
		} else if told.Message == "" {
			told.Message = Status(status).String()
		}
		return told
	}
	return &Error{
		Status: Status(status), Message: C.GoString(&e.message[0]), Site: C.GoString(&e.site[0]), Offset: uint64(e.offset),
		OSCode: int64(e.os_code),
	}
}

// told calls a function that has no gptq_error.
func told(f func() C.gptq_status) error {
	return call(func(*C.gptq_error) C.gptq_status { return f() })
}

// arena holds memory of C's for the time of a call: Go's may not hold pointers that C follows.
type arena []unsafe.Pointer

func (a *arena) alloc(size uintptr) unsafe.Pointer {
	p := C.calloc(1, C.size_t(size+1))
	if p == nil {
		panic("gptq: out of memory")
	}
	*a = append(*a, p)
	return p
}

func (a *arena) free() {
	for _, p := range *a {
		C.free(p)
	}
}

func (a *arena) text(s string) (*C.char, C.size_t) {
	p := a.alloc(uintptr(len(s)))
	copy(unsafe.Slice((*byte)(p), len(s)), s)
	return (*C.char)(p), C.size_t(len(s))
}

func zeroed[T any](a *arena) *T {
	var t T
	return (*T)(a.alloc(unsafe.Sizeof(t)))
}

func array[T any](a *arena, n int) (*T, []T) {
	var t T
	p := (*T)(a.alloc(unsafe.Sizeof(t) * uintptr(n)))
	return p, unsafe.Slice(p, n)
}

func sizeOf[T any](*T) C.uint32_t {
	var t T
	return C.uint32_t(unsafe.Sizeof(t))
}

// stringList is texts for C.
func (a *arena) stringList(texts []string) (*C.gptq_string, C.size_t) {
	list, strings := array[C.gptq_string](a, len(texts))
	for i, text := range texts {
		strings[i].ptr, strings[i].size = a.text(text)
	}
	return list, C.size_t(len(texts))
}

// jsonText is a value for C as JSON; what is JSON text already stays as it is.
func (a *arena) jsonText(value any) (*C.char, C.size_t, error) {
	text, err := jsonOf(value)
	if err != nil || text == "" {
		return nil, 0, err
	}
	at, n := a.text(text)
	return at, n, nil
}

func jsonOf(value any) (string, error) {
	switch v := value.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case []byte:
		return string(v), nil
	}
	text, err := json.Marshal(value)
	return string(text), err
}

// first is where the elements lie, for C.
func first[T any](list []T) *T {
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

// sized gives the output of f(buffer, capacity, needed).
func sized[T any](f func(buffer *T, cap C.size_t, needed *C.size_t) error) ([]T, error) {
	var needed C.size_t
	if err := f(nil, 0, &needed); err != nil {
		if e, ok := err.(*Error); !ok || e.Status != ErrBufferTooSmall {
			return nil, err
		}
	}
	buffer := make([]T, needed)
	if needed == 0 {
		return buffer, nil
	}
	err := f(&buffer[0], needed, &needed)
	return buffer, err
}

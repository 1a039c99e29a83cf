// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import (
	"bytes"
	"io"
)

// Source is what a model, an adapter or a save is read from: a file, bytes, or an io.ReaderAt, whole or a part of it.
type Source struct {
	path         string
	reader       io.ReaderAt
	length       int64
	offset, size int64
}

// FromFile reads the file of that name.
func FromFile(path string) Source { return Source{path: path} }

// FromBytes reads bytes, which must not change during the call.
func FromBytes(data []byte) Source { return FromReaderAt(bytes.NewReader(data), int64(len(data))) }

// FromReaderAt reads size bytes of r, during the call only and maybe from several threads. An error of r's is what the call's error unwraps to.
func FromReaderAt(r io.ReaderAt, size int64) Source { return Source{reader: r, length: size} }

// Part is the part from offset on; size 0: to the end.
func (s Source) Part(offset, size int64) Source {
	s.offset, s.size = offset, size
	return s
}

// struct_ gives it to C for the time of a call; c has its callbacks, and has to be open.
func (s Source) struct_(a *arena, c *callbacks) (*C.gptq_source, error) {
	if s.path == "" && s.reader == nil {
		return nil, &Error{Status: ErrInvalidArgument, Message: "the source is empty: use FromFile, FromBytes or FromReaderAt"}
	}
	var n counts
	src := zeroed[C.gptq_source](a)
	src.struct_size, src.offset, src.size = sizeOf(src), n.u64("offset", s.offset), n.u64("size", s.size)
	if s.reader == nil {
		src.path, src.path_size = a.text(s.path)
		return src, n.err
	}
	c.source = s
	src.io = zeroed[C.gptq_io](a)
	src.io.struct_size, src.io.user = sizeOf(src.io), c.user
	src.io.size, src.io.read_at = (*[0]byte)(C.gptq_go_size), (*[0]byte)(C.gptq_go_read)
	return src, n.err
}

// read calls f with a source and its callbacks' state.
func (s Source) read(c *callbacks, f func(src *C.gptq_source, e *C.gptq_error) C.gptq_status) error {
	var a arena
	defer a.free()
	c.open()
	src, err := s.struct_(&a, c)
	if err == nil {
		err = call(func(e *C.gptq_error) C.gptq_status { return f(src, e) })
	}
	return c.close(err)
}

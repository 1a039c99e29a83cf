// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"unsafe"
)

// Model is a .gptq file: weights, tokenizer, chat template.
type Model struct {
	Runtime *Runtime
	pointer *C.gptq_model
}

// Close drops the reference; engines keep what they need.
func (m *Model) Close() error {
	if m.pointer != nil {
		runtime.SetFinalizer(m, nil)
		C.gptq_model_release(m.pointer)
		m.pointer = nil
	}
	return nil
}

// ModelInfo is what a model is.
type ModelInfo struct {
	Vocab, Layers, Width, Context, Bits, GroupSize int
	BOS, EOS                                       int32
	HostBytes, Fingerprint                         uint64
}

// Info says what the model is; of a closed one it is zero.
func (m *Model) Info() ModelInfo {
	defer runtime.KeepAlive(m)
	var i C.gptq_model_info
	i.struct_size = sizeOf(&i)
	C.gptq_model_info_get(m.pointer, &i)
	return ModelInfo{
		Vocab: int(i.n_vocab), Layers: int(i.n_layers), Width: int(i.n_embd), Context: int(i.n_ctx_train), Bits: int(i.bits),
		GroupSize: int(i.group_size), BOS: int32(i.bos), EOS: int32(i.eos), HostBytes: uint64(i.host_bytes), Fingerprint: uint64(i.fingerprint),
	}
}

// Meta is text of the file: "name", "license", "chat_template", ...
func (m *Model) Meta(key string) (string, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	name, n := a.text(key)
	bytes, err := sized(func(buffer *byte, cap C.size_t, needed *C.size_t) error {
		return told(func() C.gptq_status {
			return C.gptq_model_meta(m.pointer, name, n, (*C.char)(unsafe.Pointer(buffer)), cap, needed)
		})
	})
	if e, ok := err.(*Error); ok && e.Status == ErrNotFound {
		e.Message = fmt.Sprintf("the model has no text for %q", key)
	}
	if err != nil {
		return "", err
	}
	return string(bytes[:len(bytes)-1]), nil // without the NUL
}

// Tokenize gives the ids of text. flags are TextAddBOS and TextParseSpecial.
func (m *Model) Tokenize(text string, flags uint32) ([]int32, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	at, n := a.text(text)
	return sized(func(buffer *int32, cap C.size_t, needed *C.size_t) error {
		return told(func() C.gptq_status {
			return C.gptq_tokenize(m.pointer, at, n, C.uint32_t(flags), (*C.gptq_token)(buffer), cap, needed)
		})
	})
}

// Detokenize gives the text of ids. flags may be TextRenderSpecial.
func (m *Model) Detokenize(tokens []int32, flags uint32) (string, error) {
	defer runtime.KeepAlive(m)
	bytes, err := sized(func(buffer *byte, cap C.size_t, needed *C.size_t) error {
		return told(func() C.gptq_status {
			return C.gptq_detokenize(m.pointer, (*C.gptq_token)(first(tokens)), C.size_t(len(tokens)), C.uint32_t(flags),
				(*C.char)(unsafe.Pointer(buffer)), cap, needed)
		})
	})
	return string(bytes), err
}

// Token is what a token stands for. Byte: of one byte alone; Added: not of the tokenizer's own vocabulary; End: it ends a generation.
type Token struct {
	Bytes                     []byte
	Special, Byte, Added, End bool
}

// Token gives the bytes that a token stands for, and what it is.
func (m *Model) Token(token int32) (Token, error) {
	defer runtime.KeepAlive(m)
	var at *C.char
	var size C.size_t
	var attributes C.uint32_t
	err := told(func() C.gptq_status {
		return C.gptq_token_bytes(m.pointer, C.gptq_token(token), &at, &size, &attributes)
	})
	if err != nil {
		return Token{}, err
	}
	is := func(flag C.uint32_t) bool { return attributes&flag != 0 }
	return Token{
		Bytes: C.GoBytes(unsafe.Pointer(at), C.int(size)), Special: is(TokenSpecial), Byte: is(TokenByte), Added: is(TokenAdded), End: is(TokenEnd),
	}, nil
}

// Placement is layers that are side by side on one device. Kind is DeviceCPU or DeviceCUDA.
type Placement struct {
	Kind, Ordinal, FirstLayer, Layers int
	Bytes                             uint64
}

// Placements says which layers are where, in their order.
func (m *Model) Placements() ([]Placement, error) {
	defer runtime.KeepAlive(m)
	var all []Placement
	for {
		var p C.gptq_placement
		p.struct_size = sizeOf(&p)
		err := told(func() C.gptq_status { return C.gptq_model_placement(m.pointer, C.uint32_t(len(all)), &p) })
		if errors.Is(err, fs.ErrNotExist) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, Placement{
			Kind: int(p.kind), Ordinal: int(p.ordinal), FirstLayer: int(p.first_layer), Layers: int(p.n_layers), Bytes: uint64(p.bytes),
		})
	}
}

// EngineOptions say what to reserve. Zero means one session and the model's context, at most 4096 tokens.
type EngineOptions struct {
	MaxSessions, ContextTokens, PageTokens, BatchTokens, LogitsRows int
	BestLogProbs                                                    int // of each token so many of the best are kept for GenLogprobs, at most 20
	AdapterRank                                                     int // room for adapters of this rank; otherwise it is taken with the first
	KVBytes                                                         uint64
	Exact                                                           bool  // float32 activations
	BF16                                                            bool  // bfloat16 activations; not with Exact
	KVType                                                          int32 // KVF16 to KVI4, plus KVValuesF16 to KVValuesI4 or nothing
}

func (o *EngineOptions) params(a *arena) (*C.gptq_engine_params, error) {
	p := zeroed[C.gptq_engine_params](a)
	var c counts
	p.struct_size = sizeOf(p)
	p.max_sessions, p.ctx_tokens, p.page_tokens = c.u32("MaxSessions", o.MaxSessions), c.u32("ContextTokens", o.ContextTokens), c.u32("PageTokens", o.PageTokens)
	p.batch_tokens, p.logits_rows = c.u32("BatchTokens", o.BatchTokens), c.u32("LogitsRows", o.LogitsRows)
	p.best_logprobs, p.adapter_rank = c.u32("BestLogProbs", o.BestLogProbs), c.u32("AdapterRank", o.AdapterRank)
	p.kv_bytes, p.kv_type = C.uint64_t(o.KVBytes), C.int32_t(o.KVType)
	if o.Exact {
		p.flags |= EngineExact
	}
	if o.BF16 {
		p.flags |= EngineBf16
	}
	return p, c.err
}

// NewEngine reserves everything that generating will need.
func (m *Model) NewEngine(o EngineOptions) (*Engine, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	p, err := o.params(&a)
	if err != nil {
		return nil, err
	}
	e := &Engine{Model: m, nBest: o.BestLogProbs}
	if err := call(func(err *C.gptq_error) C.gptq_status { return C.gptq_engine_create(m.pointer, p, &e.pointer, err) }); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(e, (*Engine).Close)
	return e, nil
}

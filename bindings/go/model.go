// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Model is a .gptq file: weights, tokenizer, chat template.
type Model struct {
	Runtime *Runtime
	pointer *C.gptq_model
}

// Close drops the reference; engines keep the model.
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

func (m *Model) Info() ModelInfo {
	var i C.gptq_model_info
	i.struct_size = sizeOf(&i)
	C.gptq_model_info_get(m.pointer, &i)
	runtime.KeepAlive(m)
	return ModelInfo{
		Vocab: int(i.n_vocab), Layers: int(i.n_layers), Width: int(i.n_embd), Context: int(i.n_ctx_train), Bits: int(i.bits),
		GroupSize: int(i.group_size), BOS: int32(i.bos), EOS: int32(i.eos), HostBytes: uint64(i.host_bytes), Fingerprint: uint64(i.fingerprint),
	}
}

// Meta is text of the file: "name", "license", "chat_template", ...
func (m *Model) Meta(key string) (string, error) {
	var a arena
	defer a.free()
	name, n := a.text(key)
	bytes, err := sized(func(buffer *byte, cap C.size_t, needed *C.size_t) error {
		return check(C.gptq_model_meta(m.pointer, name, n, (*C.char)(unsafe.Pointer(buffer)), cap, needed))
	})
	if err != nil {
		return "", err
	}
	return string(bytes[:len(bytes)-1]), nil // without the NUL
}

// Tokenize: flags are TextAddBOS and TextParseSpecial.
func (m *Model) Tokenize(text string, flags uint32) ([]int32, error) {
	var a arena
	defer a.free()
	at, n := a.text(text)
	return sized(func(buffer *int32, cap C.size_t, needed *C.size_t) error {
		return check(C.gptq_tokenize(m.pointer, at, n, C.uint32_t(flags), (*C.gptq_token)(buffer), cap, needed))
	})
}

// Detokenize: flags may be TextRenderSpecial.
func (m *Model) Detokenize(tokens []int32, flags uint32) (string, error) {
	bytes, err := sized(func(buffer *byte, cap C.size_t, needed *C.size_t) error {
		at, n := ids(tokens)
		return check(C.gptq_detokenize(m.pointer, at, n, C.uint32_t(flags), (*C.char)(unsafe.Pointer(buffer)), cap, needed))
	})
	return string(bytes), err
}

func ids(tokens []int32) (*C.gptq_token, C.size_t) {
	if len(tokens) == 0 {
		return nil, 0
	}
	return (*C.gptq_token)(&tokens[0]), C.size_t(len(tokens))
}

// Message is one of a conversation.
type Message struct{ Role, Text string }

func chatOf(a *arena, messages []Message) *C.gptq_chat {
	chat := zeroed[C.gptq_chat](a)
	first, pointers := array[*C.gptq_message](a, len(messages))
	for i, message := range messages {
		m := zeroed[C.gptq_message](a)
		m.struct_size = sizeOf(m)
		m.role, m.role_size = a.text(message.Role)
		m.text, m.text_size = a.text(message.Text)
		pointers[i] = m
	}
	chat.struct_size, chat.flags = sizeOf(chat), ChatAddGenerationPrompt
	chat.messages, chat.n_messages = first, C.size_t(len(messages))
	return chat
}

// RenderChat is the model's chat template over the messages.
func (m *Model) RenderChat(messages []Message) (string, error) {
	var a arena
	defer a.free()
	chat := chatOf(&a, messages)
	bytes, err := sized(func(buffer *byte, cap C.size_t, needed *C.size_t) error {
		return call(func(e *C.gptq_error) C.gptq_status {
			return C.gptq_chat_render(m.pointer, chat, (*C.char)(unsafe.Pointer(buffer)), cap, needed, e)
		})
	})
	return string(bytes), err
}

// EngineOptions: zero means one session and the model's context, at most 4096 tokens.
type EngineOptions struct {
	MaxSessions, ContextTokens, BatchTokens, LogitsRows int
	KVBytes                                             uint64
	Exact                                               bool
}

// NewEngine reserves everything that generating will need.
func (m *Model) NewEngine(o EngineOptions) (*Engine, error) {
	var p C.gptq_engine_params
	p.struct_size = sizeOf(&p)
	p.max_sessions, p.ctx_tokens, p.batch_tokens = C.uint32_t(o.MaxSessions), C.uint32_t(o.ContextTokens), C.uint32_t(o.BatchTokens)
	p.logits_rows, p.kv_bytes = C.uint32_t(o.LogitsRows), C.uint64_t(o.KVBytes)
	if o.Exact {
		p.flags = EngineExact
	}
	e := &Engine{Model: m}
	if err := call(func(err *C.gptq_error) C.gptq_status { return C.gptq_engine_create(m.pointer, &p, &e.pointer, err) }); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(e, (*Engine).Close)
	return e, nil
}

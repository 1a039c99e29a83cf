// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import (
	"encoding/json"
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
		return check(C.gptq_model_meta(m.pointer, name, n, (*C.char)(unsafe.Pointer(buffer)), cap, needed))
	})
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
		return check(C.gptq_tokenize(m.pointer, at, n, C.uint32_t(flags), (*C.gptq_token)(buffer), cap, needed))
	})
}

// Detokenize gives the text of ids. flags may be TextRenderSpecial.
func (m *Model) Detokenize(tokens []int32, flags uint32) (string, error) {
	defer runtime.KeepAlive(m)
	bytes, err := sized(func(buffer *byte, cap C.size_t, needed *C.size_t) error {
		return check(C.gptq_detokenize(m.pointer, (*C.gptq_token)(first(tokens)), C.size_t(len(tokens)), C.uint32_t(flags),
			(*C.char)(unsafe.Pointer(buffer)), cap, needed))
	})
	return string(bytes), err
}

// Message is one of a conversation.
type Message struct{ Role, Text string }

func chatOf(a *arena, messages []Message) *C.gptq_chat {
	chat := zeroed[C.gptq_chat](a)
	list, pointers := array[*C.gptq_message](a, len(messages))
	for i, message := range messages {
		m := zeroed[C.gptq_message](a)
		m.struct_size = sizeOf(m)
		m.role, m.role_size = a.text(message.Role)
		m.text, m.text_size = a.text(message.Text)
		pointers[i] = m
	}
	chat.struct_size, chat.flags = sizeOf(chat), ChatAddGenerationPrompt
	chat.messages, chat.n_messages = list, C.size_t(len(messages))
	return chat
}

// RenderChat is the model's chat template over the messages.
func (m *Model) RenderChat(messages []Message) (string, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	chat := chatOf(&a, messages)
	bytes, err := sized(func(buffer *byte, cap C.size_t, needed *C.size_t) error {
		return call(func(e *C.gptq_error) C.gptq_status {
			return C.gptq_chat_render(m.pointer, chat, (*C.char)(unsafe.Pointer(buffer)), cap, needed, e)
		})
	})
	return string(bytes), err
}

// EngineOptions say what to reserve. Zero means one session and the model's context, at most 4096 tokens.
type EngineOptions struct {
	MaxSessions, ContextTokens, BatchTokens, LogitsRows int
	KVBytes                                             uint64
	Exact                                               bool
	KVType                                              int32 // KVF16 to KVI4, plus KVValuesF16 to KVValuesI4 or nothing
}

// NewEngine reserves everything that generating will need.
func (m *Model) NewEngine(o EngineOptions) (*Engine, error) {
	defer runtime.KeepAlive(m)
	var p C.gptq_engine_params
	var c counts
	p.struct_size = sizeOf(&p)
	p.max_sessions, p.ctx_tokens = c.u32("MaxSessions", o.MaxSessions), c.u32("ContextTokens", o.ContextTokens)
	p.batch_tokens, p.logits_rows = c.u32("BatchTokens", o.BatchTokens), c.u32("LogitsRows", o.LogitsRows)
	p.kv_bytes = C.uint64_t(o.KVBytes)
	if c.err != nil {
		return nil, c.err
	}
	p.kv_type = C.int32_t(o.KVType)
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

// Constraint is what a generated text must be: for Options.Constraint, of any number of generations at once.
type Constraint struct {
	model   *Model
	pointer *C.gptq_constraint
}

// NewChoice makes the text one of some.
func (m *Model) NewChoice(texts ...string) (*Constraint, error) {
	source, err := json.Marshal(texts)
	if err != nil {
		return nil, err
	}
	return m.newConstraint(ConstraintChoice, string(source))
}

// NewRegex makes the text match the expression as a whole. An Error's Offset is the byte where the expression was refused.
func (m *Model) NewRegex(expression string) (*Constraint, error) {
	return m.newConstraint(ConstraintRegex, expression)
}

func (m *Model) newConstraint(kind int32, source string) (*Constraint, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	at, n := a.text(source)
	c := &Constraint{model: m}
	err := call(func(e *C.gptq_error) C.gptq_status {
		return C.gptq_constraint_compile(m.pointer, C.int32_t(kind), at, n, &c.pointer, e)
	})
	if err != nil {
		return nil, err
	}
	runtime.SetFinalizer(c, (*Constraint).Close)
	return c, nil
}

// Close drops the reference; generations in progress keep what they need.
func (c *Constraint) Close() error {
	if c.pointer != nil {
		runtime.SetFinalizer(c, nil)
		C.gptq_constraint_destroy(c.pointer)
		c.pointer = nil
	}
	return nil
}

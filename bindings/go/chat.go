// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// Message is one of a conversation. Extra is what else the template may ask it for: an object, as encoding/json takes it, or JSON text.
type Message struct {
	Role, Text string
	Extra      any
}

// ChatOptions say how a conversation becomes a sequence. Tools (a list) and Variables (an object) are what encoding/json takes, or JSON text.
type ChatOptions struct {
	NoGenerationPrompt bool   // without what makes the model answer
	DropOldest         bool   // leave the oldest turns out, whole ones, where the conversation does not fit: Info.Dropped
	ReserveTokens      int    // room for the reply; 0 = a quarter of the context
	KeepTokens         int    // when turns must go, at most so many tokens stay; 0 = half of the rest
	Tools, Variables   any    // of the template
	Template           string // instead of the model's
}

func chatOf(a *arena, messages []Message, options []ChatOptions) (*C.gptq_chat, error) {
	var n counts
	var err error
	chat := zeroed[C.gptq_chat](a)
	list, pointers := array[*C.gptq_message](a, len(messages))
	for i, message := range messages {
		m := zeroed[C.gptq_message](a)
		m.struct_size = sizeOf(m)
		m.role, m.role_size = a.text(message.Role)
		m.text, m.text_size = a.text(message.Text)
		if m.extra_json, m.extra_json_size, err = a.jsonText(message.Extra); err != nil {
			return nil, err
		}
		pointers[i] = m
	}
	chat.struct_size, chat.flags = sizeOf(chat), ChatAddGenerationPrompt
	chat.messages, chat.n_messages = list, C.size_t(len(messages))
	for _, o := range options {
		if o.NoGenerationPrompt {
			chat.flags &^= ChatAddGenerationPrompt
		}
		if o.DropOldest {
			chat.flags |= ChatDropOldest
		}
		chat.reserve_tokens, chat.keep_tokens = n.u32("ReserveTokens", o.ReserveTokens), n.u32("KeepTokens", o.KeepTokens)
		if chat.tools_json, chat.tools_json_size, err = a.jsonText(o.Tools); err != nil {
			return nil, err
		}
		if chat.kwargs_json, chat.kwargs_json_size, err = a.jsonText(o.Variables); err != nil {
			return nil, err
		}
		if o.Template != "" {
			chat.template_override, chat.template_override_size = a.text(o.Template)
		}
	}
	return chat, n.err
}

// RenderChat is the model's chat template over the messages. At most one ChatOptions.
func (m *Model) RenderChat(messages []Message, options ...ChatOptions) (string, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	chat, err := chatOf(&a, messages, options)
	if err != nil {
		return "", err
	}
	bytes, err := sized(func(buffer *byte, cap C.size_t, needed *C.size_t) error {
		return call(func(e *C.gptq_error) C.gptq_status {
			return C.gptq_chat_render(m.pointer, chat, (*C.char)(unsafe.Pointer(buffer)), cap, needed, e)
		})
	})
	return string(bytes), err
}

// SetChat makes the sequence that of the conversation, keeping what it already begins with; it returns how many tokens that is. At most one
// ChatOptions.
func (s *Session) SetChat(messages []Message, options ...ChatOptions) (int, error) {
	var a arena
	defer a.free()
	var n C.size_t
	chat, err := chatOf(&a, messages, options)
	if err != nil {
		return 0, err
	}
	err = s.with(func(p *C.gptq_session, e *C.gptq_error) C.gptq_status { return C.gptq_session_set_chat(p, chat, &n, e) })
	return int(n), err
}

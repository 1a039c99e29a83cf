// SPDX-License-Identifier: Apache-2.0

package gptq

// #include "shim.h"
import "C"

import "runtime"

// Constraint is what a generated text must be, for Options.Constraint, or phrases that it never has, for Options.Banned; of any number of
// generations at once.
type Constraint struct {
	model   *Model
	pointer *C.gptq_constraint
}

// NewChoice makes the text one of some.
func (m *Model) NewChoice(texts ...string) (*Constraint, error) {
	return m.NewConstraint(ConstraintChoice, append([]string{}, texts...))
}

// NewRegex makes the text match the expression as a whole. An Error's Offset is the byte where the expression was refused.
func (m *Model) NewRegex(expression string) (*Constraint, error) {
	return m.NewConstraint(ConstraintRegex, expression)
}

// NewJSONSchema makes it JSON that the schema allows: what encoding/json takes, or JSON text.
func (m *Model) NewJSONSchema(schema any) (*Constraint, error) {
	return m.NewConstraint(ConstraintJsonSchema, schema)
}

// NewCompactJSONSchema does the same, each value in the shortest way to write it.
func (m *Model) NewCompactJSONSchema(schema any) (*Constraint, error) {
	return m.NewConstraint(ConstraintJsonCompact, schema)
}

// NewGrammar makes it a text of the grammar, as llama.cpp writes them (GBNF).
func (m *Model) NewGrammar(gbnf string) (*Constraint, error) {
	return m.NewConstraint(ConstraintGrammar, gbnf)
}

// NewTags makes it free text until a tag begins, for tool calls. The source, as gptq.h says, is what encoding/json takes, or JSON text.
func (m *Model) NewTags(source any) (*Constraint, error) {
	return m.NewConstraint(ConstraintTags, source)
}

// NewBanned is for Options.Banned: phrases that the text never has, in large and small letters.
func (m *Model) NewBanned(phrases ...string) (*Constraint, error) {
	return m.NewConstraint(ConstraintBanned, append([]string{}, phrases...))
}

// NewConstraint makes one of a kind: ConstraintChoice, ... The source is its text, or what encoding/json takes.
func (m *Model) NewConstraint(kind int32, source any) (*Constraint, error) {
	var a arena
	defer a.free()
	defer runtime.KeepAlive(m)
	text, err := jsonOf(source)
	if err != nil {
		return nil, err
	}
	at, n := a.text(text)
	c := &Constraint{model: m}
	err = call(func(e *C.gptq_error) C.gptq_status {
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

// Adapter is a .gptq-lora file, for Session.SetAdapter.
type Adapter struct {
	model   *Model
	pointer *C.gptq_adapter
}

// AdapterInfo is what an adapter is: the largest rank of its matrices, and how many matrices of the model it changes.
type AdapterInfo struct {
	Rank, Matrices         int
	HostBytes, Fingerprint uint64
}

// LoadAdapter loads one for sessions of the model.
func (m *Model) LoadAdapter(src Source) (*Adapter, error) {
	defer runtime.KeepAlive(m)
	a := &Adapter{model: m}
	err := src.read(&callbacks{}, func(from *C.gptq_source, e *C.gptq_error) C.gptq_status {
		return C.gptq_adapter_load(m.pointer, from, &a.pointer, e)
	})
	if err != nil {
		return nil, err
	}
	runtime.SetFinalizer(a, (*Adapter).Close)
	return a, nil
}

// Info says what it is.
func (a *Adapter) Info() (AdapterInfo, error) {
	defer runtime.KeepAlive(a)
	var i C.gptq_adapter_info
	i.struct_size = sizeOf(&i)
	if a.pointer == nil {
		return AdapterInfo{}, invalid("the adapter is closed")
	}
	err := told(func() C.gptq_status { return C.gptq_adapter_info_get(a.pointer, &i) })
	return AdapterInfo{Rank: int(i.rank), Matrices: int(i.n_matrices), HostBytes: uint64(i.host_bytes), Fingerprint: uint64(i.fingerprint)}, err
}

// Close drops the reference; sessions keep what they have.
func (a *Adapter) Close() error {
	if a.pointer != nil {
		runtime.SetFinalizer(a, nil)
		C.gptq_adapter_release(a.pointer)
		a.pointer = nil
	}
	return nil
}

// SetAdapter computes with it from now on, its changes multiplied by scale, also in the middle of a generation; nil: without any.
func (s *Session) SetAdapter(a *Adapter, scale float32) error {
	defer runtime.KeepAlive(a)
	var pointer *C.gptq_adapter
	if a != nil {
		if pointer = a.pointer; pointer == nil {
			return invalid("the adapter is closed")
		}
	}
	return s.with(func(p *C.gptq_session, e *C.gptq_error) C.gptq_status {
		return C.gptq_session_set_adapter(p, pointer, C.float(scale), e)
	})
}

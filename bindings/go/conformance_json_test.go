// SPDX-License-Identifier: Apache-2.0

package gptq_test

import (
	"encoding/json"

	"libgptq/gptq"
)

// What a call of bindings/conformance.json says.

type params struct {
	MaxTokens     int      `json:"max_tokens"`
	Temperature   float32  `json:"temperature"`
	TopK          int      `json:"top_k"`
	TopP          float32  `json:"top_p"`
	MinP          float32  `json:"min_p"`
	RepeatPenalty float32  `json:"repeat_penalty"`
	Seed          uint64   `json:"seed"`
	Stop          []string `json:"stop"`
	IgnoreEOS     bool     `json:"ignore_eos"`
	PrefillOnly   bool     `json:"prefill_only"`
	Logits        bool     `json:"logits"`
	Marked        bool     `json:"marked"`
	LogProbs      bool     `json:"logprobs"`
	Pooling       string   `json:"pooling"`
	Banned        []string `json:"banned"`
	Constraint    *struct{ Kind, Source string }
	Choice        []string `json:"choice"`
	Regex         string   `json:"regex"`
	Bits          int      `json:"bits"`
	GroupSize     int      `json:"group_size"`
	Rows          int      `json:"rows"`
	RowTokens     int      `json:"row_tokens"`
	HeadBits      int      `json:"head_bits"`
	Damp          float64  `json:"damp"`
	FirstToken    float64  `json:"first_token_weight"`
	BitsPerWeight float64  `json:"bits_per_weight"`
	FileBytesMax  uint64   `json:"file_bytes_max"`
	Asymmetric    bool     `json:"asymmetric"`
	Aim           bool     `json:"aim"`
	Reference     bool     `json:"reference"`
	Tokens        []int32  `json:"tokens"`
}

type engineOptions struct {
	Exact       bool `json:"exact"`
	MaxSessions int  `json:"max_sessions"`
	CtxTokens   int  `json:"ctx_tokens"`
	LogitsRows  int  `json:"logits_rows"`
	Best        int  `json:"best_logprobs"`
	AdapterRank int  `json:"adapter_rank"`
	BF16        bool `json:"bf16"`
}

func (o *engineOptions) options() gptq.EngineOptions {
	return gptq.EngineOptions{
		Exact: o.Exact, BF16: o.BF16, MaxSessions: o.MaxSessions, ContextTokens: o.CtxTokens, LogitsRows: o.LogitsRows, BestLogProbs: o.Best,
		AdapterRank: o.AdapterRank,
	}
}

type description struct {
	Call          string          `json:"call"`
	Session       int             `json:"session"`
	As            int             `json:"as"`
	Input         json.RawMessage `json:"input"`
	Model         string          `json:"model"`
	Key           string          `json:"key"`
	From          string          `json:"from"`
	To            string          `json:"to"`
	AddBOS        bool            `json:"add_bos"`
	ParseSpecial  bool            `json:"parse_special"`
	RenderSpecial bool            `json:"render_special"`
	BudgetUS      *int64          `json:"budget_us"`
	NTokens       int             `json:"n_tokens"`
	Pieces        int             `json:"pieces"`
	Params        params          `json:"params"`
	Messages      []struct{ Role, Content, Extra string }
	Template      string         `json:"template"`
	Variables     string         `json:"variables"`
	Tools         string         `json:"tools"`
	DropOldest    bool           `json:"drop_oldest"`
	ReserveTokens int            `json:"reserve_tokens"`
	KeepTokens    int            `json:"keep_tokens"`
	First         int            `json:"first"`
	N             int            `json:"n"`
	Pooling       string         `json:"pooling"`
	Normalize     bool           `json:"normalize"`
	Adapter       string         `json:"adapter"`
	Scale         *float32       `json:"scale"`
	Full          bool           `json:"full"`
	Engine        *engineOptions `json:"engine"`
	Expect        object         `json:"expect"`
	Error         string         `json:"error"`
	Message       string         `json:"message"`
	Site          string         `json:"site"`
}

func (d *description) text() (s string)   { _ = json.Unmarshal(d.Input, &s); return }
func (d *description) ids() (ids []int32) { _ = json.Unmarshal(d.Input, &ids); return }

func (d *description) flags() (flags uint32) {
	for flag, wanted := range map[uint32]bool{gptq.TextAddBOS: d.AddBOS, gptq.TextParseSpecial: d.ParseSpecial, gptq.TextRenderSpecial: d.RenderSpecial} {
		if wanted {
			flags |= flag
		}
	}
	return
}

func (d *description) messages() (list []gptq.Message) {
	for _, m := range d.Messages {
		list = append(list, gptq.Message{Role: m.Role, Text: m.Content, Extra: m.Extra})
	}
	return
}

func (d *description) chat() gptq.ChatOptions {
	return gptq.ChatOptions{
		DropOldest: d.DropOldest, ReserveTokens: d.ReserveTokens, KeepTokens: d.KeepTokens, Tools: d.Tools, Variables: d.Variables, Template: d.Template,
	}
}

func (d *description) texts() (texts []string) { _ = json.Unmarshal(d.Input, &texts); return }

var poolings = map[string]int32{"": gptq.PoolNone, "last": gptq.PoolLast, "mean": gptq.PoolMean}

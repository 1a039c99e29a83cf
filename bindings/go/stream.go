// SPDX-License-Identifier: Apache-2.0

package gptq

import (
	"context"
	"io"
	"time"
)

const streamBudget = 5 * time.Millisecond

// Stream is the text of a session that works while it is read: an iterator (Next, All) and an io.ReadCloser.
type Stream struct {
	session *Session
	ctx     context.Context
	rest    string // for Read
	end     error
}

// Stream continues the prompt. Close the stream, or cancel ctx, to end it early.
func (s *Session) Stream(ctx context.Context, prompt string, o Options) (*Stream, error) {
	info, err := s.Info()
	if err != nil {
		return nil, err
	}
	flags := uint32(TextParseSpecial)
	if info.Tokens == 0 {
		flags |= TextAddBOS
	}
	if prompt != "" {
		if err := s.Append(prompt, flags); err != nil {
			return nil, err
		}
	}
	if err := s.Start(o); err != nil {
		return nil, err
	}
	return &Stream{session: s, ctx: ctx}, nil
}

// Next gives the next piece of text, in whole UTF-8 code points, and io.EOF after the last.
func (t *Stream) Next() (string, error) {
	for t.end == nil {
		if t.ctx.Err() != nil {
			_ = t.Close()
			t.end = t.ctx.Err()
			break
		}
		info, err := t.session.Info()
		if err != nil {
			t.end = err
			break
		}
		piece, err := t.session.ReadText()
		if piece != "" && err == nil {
			return piece, nil
		}
		if err == nil && !info.Running {
			err = io.EOF
			if info.Status < 0 {
				err = &Error{Status: info.Status, Message: "the generation ended by an error"}
			}
		}
		if err == nil {
			_, err = t.session.Engine.Step(streamBudget)
		}
		t.end = err
	}
	return "", t.end
}

// All gives the pieces to yield, then, if it did not end well, the error. From Go 1.23 on it is for range: for piece, err := range
// stream.All. It closes the stream when yield returns false.
func (t *Stream) All(yield func(piece string, err error) bool) {
	for {
		piece, err := t.Next()
		if err != nil {
			if err != io.EOF {
				yield("", err)
			}
			return
		}
		if !yield(piece, nil) {
			_ = t.Close()
			return
		}
	}
}

// Read makes it an io.Reader.
func (t *Stream) Read(p []byte) (int, error) {
	if t.rest == "" {
		piece, err := t.Next()
		if err != nil {
			return 0, err
		}
		t.rest = piece
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// Close ends the session's work, unless that is over.
func (t *Stream) Close() error {
	if t.end != nil {
		return nil
	}
	t.end = io.ErrClosedPipe
	t.session.Cancel()
	_, err := t.session.Engine.Step(time.Microsecond) // which ends it; a poll would not
	return err
}

// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// What layout.c printed (GPTQ_LAYOUT) is what Go has.
func TestLayout(t *testing.T) {
	text, err := os.ReadFile(os.Getenv("GPTQ_LAYOUT"))
	if err != nil {
		t.Fatal(err)
	}
	facts, n := Facts(), 0
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		var name string
		var value int64
		if _, err := fmt.Sscan(line, &name, &value); err != nil {
			t.Fatal(line, err)
		}
		if found, ok := facts[name]; !ok || found != value {
			t.Errorf("%s is %d (%t), not %d", name, found, ok, value)
		}
		n++
	}
	if n != len(facts) || n < 200 {
		t.Errorf("C has %d facts, Go %d", n, len(facts))
	}
	if !t.Failed() {
		fmt.Printf("ok - %d constants, sizes and offsets\n", n)
	}
}

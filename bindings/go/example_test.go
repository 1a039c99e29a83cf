// SPDX-License-Identifier: Apache-2.0

package gptq_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The example of README.md, in a module of its own that uses this one.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	here, _ := os.Getwd()
	program := strings.SplitN(strings.SplitN(string(readme), "```go\n", 2)[1], "```", 2)[0]
	folder := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("main.go", program)
	write("go.mod", "module story\n\ngo 1.19\n\nrequire libgptq/gptq v0.0.0\n\nreplace libgptq/gptq => "+here+"\n")
	command := exec.Command("go", "run", ".", path("text"))
	command.Dir = folder
	out, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(out), " tokens") {
		t.Fail()
		fmt.Printf("not ok - the example of the README: %v: %s\n", err, out)
		return
	}
	fmt.Println("ok - the example of the README")
}

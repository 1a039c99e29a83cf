// SPDX-License-Identifier: Apache-2.0
#include "shim.h"

#include "_cgo_export.h"

int32_t gptq_go_text(void *user, const char *text, size_t size) { return goText((uintptr_t)user, (char *)text, size); }
int32_t gptq_go_progress(void *user, uint32_t phase, uint32_t permille) { return goProgress((uintptr_t)user, phase, permille); }
void gptq_go_report(void *user, const gptq_quantize_report *report) { goReport((uintptr_t)user, (gptq_quantize_report *)report); }
void gptq_go_log(void *user, int32_t level, const char *text, size_t size) { goLog((uintptr_t)user, level, (char *)text, size); }
void gptq_go_free(void *user) { goFree((uintptr_t)user); }

uintptr_t gptq_go_thread(void) {
  static _Thread_local char mark;
  return (uintptr_t)&mark;
}

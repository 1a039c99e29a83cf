// SPDX-License-Identifier: Apache-2.0
#include "shim.h"

#include <string.h>

#include "_cgo_export.h"

int32_t gptq_go_text(void *user, const char *text, size_t size) { return goText((uintptr_t)user, (char *)text, size); }
int32_t gptq_go_progress(void *user, uint32_t phase, uint32_t permille) { return goProgress((uintptr_t)user, phase, permille); }
void gptq_go_report(void *user, const gptq_quantize_report *report) { goReport((uintptr_t)user, (gptq_quantize_report *)report); }
int64_t gptq_go_size(void *user) { return goSize((uintptr_t)user); }
int64_t gptq_go_read(void *user, uint64_t offset, void *to, size_t size) { return goRead((uintptr_t)user, offset, to, size); }
int32_t gptq_go_write(void *user, const void *bytes, size_t size) { return goWrite((uintptr_t)user, (void *)bytes, size); }
void gptq_go_free(void *user) {
  if (user) goFree((uintptr_t)user);
}

static _Thread_local char told[sizeof(((gptq_error *)0)->message) + sizeof(((gptq_error *)0)->site) + 4];
static _Thread_local int fresh;

void gptq_go_log(void *user, int32_t level, const char *text, size_t size) {
  if (level == GPTQ_LOG_ERROR) {
    const size_t n = size < sizeof told ? size : sizeof told - 1;
    memcpy(told, text, n);
    told[n] = 0;
    fresh = 1;
  }
  if (user) goLog((uintptr_t)user, level, (char *)text, size);
}

const char *gptq_go_told(void) {
  const char *text = fresh ? told : "";
  fresh = 0;
  return text;
}

uintptr_t gptq_go_thread(void) {
  static _Thread_local char mark;
  return (uintptr_t)&mark;
}

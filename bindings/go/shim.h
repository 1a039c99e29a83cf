/* SPDX-License-Identifier: Apache-2.0 */
/* Go's callbacks as C sees them; user is a cgo.Handle. */
#ifndef GPTQ_GO_SHIM_H
#define GPTQ_GO_SHIM_H
#include <gptq/gptq.h>
#include <stdlib.h>

int32_t gptq_go_text(void *user, const char *text, size_t size);
int32_t gptq_go_progress(void *user, uint32_t phase, uint32_t permille);
void gptq_go_report(void *user, const gptq_quantize_report *report);
void gptq_go_log(void *user, int32_t level, const char *text, size_t size);
void gptq_go_free(void *user);
uintptr_t gptq_go_thread(void); /* names the thread that calls */
static inline void *gptq_go_user(uintptr_t handle) { return (void *)handle; }
#endif

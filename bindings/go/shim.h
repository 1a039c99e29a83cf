/* SPDX-License-Identifier: Apache-2.0 */
/* Go's callbacks as C sees them; user is a cgo.Handle. */
#ifndef GPTQ_GO_SHIM_H
#define GPTQ_GO_SHIM_H
#include <gptq/gptq.h>
#include <stdlib.h>

int32_t gptq_go_text(void *user, const char *text, size_t size);
int32_t gptq_go_progress(void *user, uint32_t phase, uint32_t permille);
void gptq_go_report(void *user, const gptq_quantize_report *report);
int64_t gptq_go_size(void *user);
int64_t gptq_go_read(void *user, uint64_t offset, void *to, size_t size);
int32_t gptq_go_write(void *user, const void *bytes, size_t size);
void gptq_go_log(void *user, int32_t level, const char *text, size_t size);
void gptq_go_free(void *user);
uintptr_t gptq_go_thread(void);   /* names the thread that calls */
const char *gptq_go_told(void);   /* the GPTQ_LOG_ERROR that came on this thread since it was last asked for */
static inline void *gptq_go_user(uintptr_t handle) { return (void *)handle; }
#endif

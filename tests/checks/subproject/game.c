/* SPDX-License-Identifier: Apache-2.0
 * Starts the library and ends. */
#include <gptq/gptq.h>
#include <stdio.h>

int main(void) {
  gptq_runtime *runtime = NULL;
  if (gptq_runtime_create(NULL, &runtime, NULL) < 0) return 1;
  gptq_runtime_release(runtime);
  puts("the game starts the library");
  return 0;
}

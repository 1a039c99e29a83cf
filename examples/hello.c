/* SPDX-License-Identifier: Apache-2.0
 *
 * The smallest whole program: load a model, continue a text, print it as it comes.
 *
 *     cc hello.c $(pkg-config --cflags --libs gptq) -o hello && ./hello model.gptq "Once upon a time"
 */
#include <gptq/gptq.h>
#include <stdio.h>

static int fail(const char *what, const gptq_error *err) {
  fprintf(stderr, "%s: %s (%s)\n", what, err->message, gptq_status_name(err->status));
  return 1;
}

/* Called with whole UTF-8 characters; return non-zero to stop. */
static int32_t GPTQ_CALL print(void *user, const char *text, size_t size) {
  (void)user;
  fwrite(text, 1, size, stdout);
  fflush(stdout);
  return 0;
}

int main(int argc, char **argv) {
  gptq_error err = {sizeof err};
  gptq_runtime *runtime = NULL;
  gptq_model *model = NULL;
  gptq_engine *engine = NULL;
  gptq_session *session = NULL;
  gptq_generate_params params = {sizeof params};
  gptq_session_info result = {sizeof result};
  int status = 1;

  if (argc != 3) {
    fprintf(stderr, "usage: hello MODEL.gptq PROMPT\n");
    return 2;
  }
  params.max_tokens = 64;
  if (gptq_runtime_create(NULL, &runtime, &err) < 0) {
    fail("cannot start", &err);
  } else if (gptq_model_load(runtime, argv[1], GPTQ_NTS, NULL, &model, &err) < 0) {
    fail("cannot load the model", &err);
  } else if (gptq_engine_create(model, NULL, &engine, &err) < 0 || gptq_session_create(engine, &session, &err) < 0) {
    fail("cannot make room for a session", &err);
  } else if (gptq_generate(session, argv[2], GPTQ_NTS, &params, print, NULL, &result, &err) < 0) {
    fail("cannot generate", &err);
  } else {
    printf("\n%u tokens in %.2f s\n", result.n_generated, (result.prefill_us + result.decode_us) / 1e6);
    status = 0;
  }

  gptq_session_destroy(session);
  gptq_engine_destroy(engine);
  gptq_model_release(model);
  gptq_runtime_release(runtime);
  return status;
}

// SPDX-License-Identifier: Apache-2.0
// When and how often a request is made again.
#pragma once
#include "converter/hub/http.h"
#include "converter/hub/progress.h"

namespace gptq::convert::hub {

class Patience {
 public:
  Patience(Progress& progress, int tries) : progress_(progress), tries_(tries), left_(tries) {}
  // Waits, longer from time to time, or as long as the server says; false: there is no sense in another try.
  bool again(const Answer& answer);
  void renew() { left_ = tries_; }  // something came

 private:
  Progress& progress_;
  int tries_, left_;
};

// f() until its answer is one to keep.
template <class F>
Answer patiently(Progress& progress, int tries, const F& f) {
  Patience patience(progress, tries);
  for (;;)
    if (Answer answer = f(); !answer.passing() || !patience.again(answer)) return answer;
}

}  // namespace gptq::convert::hub

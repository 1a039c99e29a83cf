// SPDX-License-Identifier: Apache-2.0
// The same for the tests of the converter, or with its help.
#include "converter/pch/converter.h"
#include "tests/pch/tests.h"

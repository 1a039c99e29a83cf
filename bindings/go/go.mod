// SPDX-License-Identifier: Apache-2.0

module libgptq/gptq

go 1.19

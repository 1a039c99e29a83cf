# SPDX-License-Identifier: Apache-2.0
"""gptq.h as data (header.py), and one module a language that writes its low layer."""

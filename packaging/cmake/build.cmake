# SPDX-License-Identifier: Apache-2.0
# Configures libgptq once, then builds its static library.
separate_arguments(OPTIONS NATIVE_COMMAND "${OPTIONS}")
if(NOT EXISTS "${BUILD}/build.ninja")
  execute_process(COMMAND "${MESON}" setup "${BUILD}" "${SOURCE}" -Dconverter=disabled -Dtests=disabled -Dcuda=disabled -Ddefault_library=static ${OPTIONS}
    COMMAND_ERROR_IS_FATAL ANY)
endif()
execute_process(COMMAND "${MESON}" compile -C "${BUILD}" gptq:static_library COMMAND_ERROR_IS_FATAL ANY)

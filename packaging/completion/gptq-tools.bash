# SPDX-License-Identifier: Apache-2.0
# Completion of gptq-run, gptq-convert, gptq-eval and gptq-bench for bash, from what their --help says. meson install puts it where
# bash-completion looks; otherwise: source gptq-tools.bash

_gptq_tools() {
  local program=$1 word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} sub= i help option values names
  [[ $previous == = || $word == = ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}  # --option=value is three words to bash
  [[ $word == = ]] && word=
  COMPREPLY=()
  help=$("$program" --help 2>/dev/null) || return
  names=$(sed -n '/^Subcommands:/,/^[A-Z][a-z]*:/s/^  \([a-z][a-z-]*\) .*/\1/p' <<<"$help")
  for ((i = 1; i < COMP_CWORD; ++i)); do
    if grep -qxF -e "${COMP_WORDS[i]}" <<<"$names"; then
      sub=${COMP_WORDS[i]}
      help=$("$program" "$sub" --help 2>/dev/null) || return
      break
    fi
  done
  # What may follow an option is in braces: TEXT:{stored,zstd}
  if [[ $previous == -* ]]; then
    option=$(grep -E -e "^  (-[a-zA-Z0-9],)?(--[a-z0-9-]+,)*$previous([ ,]|$)" <<<"$help" | head -n 1)
    values=$(sed -n 's/^[^{]*:{\([^}]*\)}.*/\1/p' <<<"$option")
    if [[ $values ]]; then
      mapfile -t COMPREPLY < <(compgen -W "$(sed 's/->[^,]*//g; s/,/ /g' <<<"$values")" -- "$word")
      return
    fi
  fi
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(sed -n '/^  *-/s/^  *\([^ ]*\).*/\1/p' <<<"$help" | tr , '\n' | sed -n 's/:.*//; /^-/p')" -- "$word")
    return
  fi
  [[ $sub || $COMP_CWORD != 1 ]] && names=
  mapfile -t COMPREPLY < <(compgen -W "$names" -- "$word"; compgen -f -- "$word")
}

complete -o filenames -F _gptq_tools gptq-run gptq-convert gptq-eval gptq-bench

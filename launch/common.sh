# shellcheck shell=bash
# Functions of all launchers. Source it; do not run it.

DRY_RUN=0

# The help is the comment at the head of the script.
show_help() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

die() {
  say "$*"
  exit 2
}

# take "$@": sets `value` to what follows an option on the command line.
take() {
  (($# >= 2)) || die "$1 needs a value: see --help"
  # shellcheck disable=SC2034 # read by the launchers
  value=$2
}

# require NAME VALUE: stops when an option that has no default was not given.
require() { [[ -n $2 ]] || die "$1 is missing: see --help"; }

# recipe NAME: succeeds for a recipe that comes with jclip, such as chinese_clip/vit_b_16.
recipe() { [[ -f ${BASH_SOURCE[0]%/*}/../configs/$1.py ]]; }

# shellcheck disable=SC2034 # read by the launchers
NO_CONFIG="is neither a file nor a recipe: \`jclip configs\` lists the recipes"

# Leading zeros are refused because bash reads them as octal; nine digits can be multiplied without overflow.
whole_number() {
  [[ $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || die "$1 takes a whole number, not '$2': write it like 8, in at most 9 digits"
}

one_or_more() {
  whole_number "$@"
  (($2 >= 1)) || die "$1 takes 1 or more, not $2"
}

# A dry run needs no tools.
need_tool() { ((DRY_RUN)) || command -v "$1" >/dev/null || die "$1 is not on PATH: $2"; }

# show WORD...: prints a command line that can be pasted into a shell.
show() {
  local word line=''
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=@,%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

# do_or_show WORD...: runs a command, or prints it in a dry run.
do_or_show() { if ((DRY_RUN)); then show "$@"; else "$@"; fi; }

# after CODE: prints what to do after an exit code of `jclip train`. 75: saved after SIGTERM, start it again. 130: saved
# after Ctrl-C. 128 and above: killed by a signal, or the machine was lost. Any other code is an error that a restart
# would repeat.
after() {
  if (($1 == 0)); then
    echo finished
  elif (($1 == 75)); then
    echo again
  elif (($1 == 130)); then
    echo stopped
  elif (($1 >= 128)); then
    echo crashed
  else
    echo error
  fi
}

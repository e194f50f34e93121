# Completion of the command ghm in bash: names of scripts, their keys and options; else files.
_ghm() {
    local IFS=$'\n'
    COMPREPLY=($(ghm complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _ghm ghm

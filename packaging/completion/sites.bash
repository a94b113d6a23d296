
# Names of sites beside what stands above.
_cellwall_sites() {
    _cellwall "$@"
    if [ "$COMP_CWORD" -gt 1 ] && [ "${2#-}" = "$2" ]; then
        local file
        for file in /etc/cellwall/sites.d/"$2"*.toml; do
            [ -e "$file" ] && file=${file##*/} && COMPREPLY+=("${file%.toml}")
        done
    fi
}
complete -F _cellwall_sites -o bashdefault -o default cellwall

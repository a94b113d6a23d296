
# Names of sites, where one is asked for.
(( $+functions[_cellwall_sites] )) ||
_cellwall_sites() {
    local -a names
    names=(/etc/cellwall/sites.d/*.toml(N:t:r))
    _describe -t sites 'site' names
}

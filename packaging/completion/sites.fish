
# Names of sites beside what stands above.
function __cellwall_sites
    for file in /etc/cellwall/sites.d/*.toml
        string replace -r '.*/(.*)\.toml$' '$1' $file
    end
end
complete -c cellwall -n 'not __fish_use_subcommand' -a '(__cellwall_sites)'

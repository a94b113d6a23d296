# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_cellwall_global_optspecs
    string join \n h/help V/version
end

function __fish_cellwall_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_cellwall_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_cellwall_using_subcommand
    set -l cmd (__fish_cellwall_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c cellwall -n "__fish_cellwall_needs_command" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_needs_command" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "apply" -d 'Compile the configuration to policy records'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "check" -d 'Check the configuration, or a file of it, and write nothing'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "policy" -d 'Print a policy record, with the line behind each rule'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "why" -d 'Tell why a request was refused, by the reference on the visitor\'s page'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "denials" -d 'Tell what the kernel denied a site\'s programs'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "explain" -d 'Rehearse a launch stage by stage, or print the manual of a code'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "learn" -d 'Watch a program of a site\'s and propose what its rules lack'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "run" -d 'Run a command in a site\'s cell'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "jail" -d 'Show, check and enter a site\'s cell'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "status" -d 'Show the sites of the pool: workers, queue, requests, times'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "top" -d 'Show them again and again, with what happened in between'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "pool" -d 'Stop, start or restart the FastCGI pool of one site'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "deployed" -d 'Tell the pool that a site was deployed: new workers, and no lost request'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "fix" -d 'List owners and modes that the launcher refuses, or mend them'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "set" -d 'Change one key of a site\'s file, and apply it'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "import" -d 'Make files of sites of an Apache with suEXEC, or of php-fpm\'s pools'
complete -c cellwall -n "__fish_cellwall_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cellwall -n "__fish_cellwall_using_subcommand apply" -l ignore-missing -d 'A site that is named and is gone is no error: its record is removed, or was'
complete -c cellwall -n "__fish_cellwall_using_subcommand apply" -l dry-run -d 'Tell what would change, and change nothing'
complete -c cellwall -n "__fish_cellwall_using_subcommand apply" -l json -d 'Print the result as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand apply" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand apply" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand check" -l json -d 'Print the result as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand check" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand check" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand policy" -l json -d 'Print it as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand policy" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand policy" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand why" -l last -d 'The last refusal or, with --again, launch instead; with a site\'s name, its last' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand why" -l said -d 'So many lines at most of what programs wrote to their error output' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand why" -l request -d 'The script of that request, where the record is the start of a pool\'s worker' -r -F
complete -c cellwall -n "__fish_cellwall_using_subcommand why" -l query -d 'The query of that request' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand why" -l most -d 'That run is ended after so many seconds' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand why" -l again -d 'Run the program once more in its cell, as a GET request, and watch what it fails on'
complete -c cellwall -n "__fish_cellwall_using_subcommand why" -l json -d 'Print it as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand why" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand why" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand denials" -l watch -d 'Tell what is denied from now on, for so long or until Ctrl-C; the kernel\'s audit is on meanwhile' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand denials" -l switch -d 'Switch the kernel\'s audit on or off, which tells denied paths and ports of all sites that log denials' -r -f -a "on\t'The kernel tells'
off\t'The kernel tells nothing but denied system calls'"
complete -c cellwall -n "__fish_cellwall_using_subcommand denials" -l json -d 'Print it as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand denials" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cellwall -n "__fish_cellwall_using_subcommand denials" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand explain" -l json -d 'Print it as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand explain" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand explain" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand learn" -l request -d 'A program of the site\'s, run as for a GET request' -r -F
complete -c cellwall -n "__fish_cellwall_using_subcommand learn" -l query -d 'The query of that request' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand learn" -l most -d 'It is ended after so many seconds' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand learn" -l traffic -d 'Run nothing: hear what the site\'s programs ask for in vain while they are served, for so long or until Ctrl-C' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand learn" -l json -d 'Print it as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand learn" -l inside -d 'This process is the one that is watched'
complete -c cellwall -n "__fish_cellwall_using_subcommand learn" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand learn" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand run" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand run" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and not __fish_seen_subcommand_from show check build refresh shell help" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and not __fish_seen_subcommand_from show check build refresh shell help" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and not __fish_seen_subcommand_from show check build refresh shell help" -f -a "show" -d 'Print what is visible inside, as a tree, with the line behind each path'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and not __fish_seen_subcommand_from show check build refresh shell help" -f -a "check" -d 'Try inside what the site\'s programs need: interpreters, names, TLS, time zones, sockets, mail …'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and not __fish_seen_subcommand_from show check build refresh shell help" -f -a "build" -d 'Make a directory a chroot, by copying what sites, pieces and programs need'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and not __fish_seen_subcommand_from show check build refresh shell help" -f -a "refresh" -d 'Bring such a chroot up to date after the system was'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and not __fish_seen_subcommand_from show check build refresh shell help" -f -a "shell" -d 'Start a shell, or one command, inside: for administrators, cron and ssh'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and not __fish_seen_subcommand_from show check build refresh shell help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from show" -l json -d 'Print it as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from show" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from check" -l name -d 'Names of hosts to look up inside, besides localhost' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from check" -l tls -d 'A TLS server to connect to from inside' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from check" -l mail -d 'Send a message to this address from inside' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from check" -l json -d 'Print the findings as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from check" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from build" -l site -d 'For this site: what its pieces and rules name, its account, its places to write' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from build" -l piece -d 'What this piece names' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from build" -l program -d 'This program, with its libraries and its interpreter' -r -F
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from build" -l dry-run -d 'Tell what would be done, and do nothing'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from build" -l json -d 'Print it as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from build" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from build" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from refresh" -l dry-run -d 'Tell what would be done, and do nothing'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from refresh" -l json -d 'Print it as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from refresh" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from refresh" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from shell" -s c -d 'A command line for the shell; without one, or with an empty one, the shell reads its input' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from shell" -l mine -d 'The first site of the account that called sudo'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from shell" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from shell" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print what is visible inside, as a tree, with the line behind each path'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from help" -f -a "check" -d 'Try inside what the site\'s programs need: interpreters, names, TLS, time zones, sockets, mail …'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from help" -f -a "build" -d 'Make a directory a chroot, by copying what sites, pieces and programs need'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from help" -f -a "refresh" -d 'Bring such a chroot up to date after the system was'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from help" -f -a "shell" -d 'Start a shell, or one command, inside: for administrators, cron and ssh'
complete -c cellwall -n "__fish_cellwall_using_subcommand jail; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cellwall -n "__fish_cellwall_using_subcommand status" -l json -d 'All that is known, as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand status" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand status" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand top" -l every -d 'Seconds between two looks' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand top" -l count -d 'How many times; without it until it is interrupted' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand top" -l json -d 'A line of JSON for each look, with all sites'
complete -c cellwall -n "__fish_cellwall_using_subcommand top" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand top" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and not __fish_seen_subcommand_from stop start restart reload help" -l json -d 'Print the outcome as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and not __fish_seen_subcommand_from stop start restart reload help" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and not __fish_seen_subcommand_from stop start restart reload help" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and not __fish_seen_subcommand_from stop start restart reload help" -f -a "stop" -d 'Answer all requests of a site with 503, and end its workers, until it is started again'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and not __fish_seen_subcommand_from stop start restart reload help" -f -a "start" -d 'Serve a stopped site again'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and not __fish_seen_subcommand_from stop start restart reload help" -f -a "restart" -d 'Put new workers in the place of a site\'s old ones, without a lost request'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and not __fish_seen_subcommand_from stop start restart reload help" -f -a "reload" -d 'Have the daemon read the policy again; apply does it too'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and not __fish_seen_subcommand_from stop start restart reload help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from stop" -l json -d 'Print the outcome as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from stop" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from stop" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from start" -l json -d 'Print the outcome as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from start" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from start" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from restart" -l json -d 'Print the outcome as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from restart" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from restart" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from reload" -l json -d 'Print the outcome as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from reload" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from reload" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from help" -f -a "stop" -d 'Answer all requests of a site with 503, and end its workers, until it is started again'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from help" -f -a "start" -d 'Serve a stopped site again'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from help" -f -a "restart" -d 'Put new workers in the place of a site\'s old ones, without a lost request'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from help" -f -a "reload" -d 'Have the daemon read the policy again; apply does it too'
complete -c cellwall -n "__fish_cellwall_using_subcommand pool; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cellwall -n "__fish_cellwall_using_subcommand deployed" -l json -d 'Print the outcome as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand deployed" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand deployed" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand fix" -l apply -d 'Do it, instead of printing the commands'
complete -c cellwall -n "__fish_cellwall_using_subcommand fix" -l json -d 'Print the result as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand fix" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand fix" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand set" -l remove -d 'Take the key out of the file, with its section where that is empty then'
complete -c cellwall -n "__fish_cellwall_using_subcommand set" -l json -d 'Print what apply did as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand set" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand set" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand import" -l to -d 'Write the files into this directory, instead of printing them' -r -F
complete -c cellwall -n "__fish_cellwall_using_subcommand import" -l pools -d 'A file of php-fpm\'s (`php-fpm.conf`, or one of its pools) instead of this host\'s' -r -F
complete -c cellwall -n "__fish_cellwall_using_subcommand import" -l nginx -d 'What nginx printed (`nginx -T`) instead of this host\'s' -r -F
complete -c cellwall -n "__fish_cellwall_using_subcommand import" -l docroot -d 'The docroot of a pool that no web server here asks' -r
complete -c cellwall -n "__fish_cellwall_using_subcommand import" -l php-fpm -d 'Pools of php-fpm, instead of an Apache with suEXEC'
complete -c cellwall -n "__fish_cellwall_using_subcommand import" -l json -d 'Print it as JSON'
complete -c cellwall -n "__fish_cellwall_using_subcommand import" -s h -l help -d 'Print help'
complete -c cellwall -n "__fish_cellwall_using_subcommand import" -s V -l version -d 'Print version'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "apply" -d 'Compile the configuration to policy records'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "check" -d 'Check the configuration, or a file of it, and write nothing'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "policy" -d 'Print a policy record, with the line behind each rule'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "why" -d 'Tell why a request was refused, by the reference on the visitor\'s page'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "denials" -d 'Tell what the kernel denied a site\'s programs'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "explain" -d 'Rehearse a launch stage by stage, or print the manual of a code'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "learn" -d 'Watch a program of a site\'s and propose what its rules lack'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "run" -d 'Run a command in a site\'s cell'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "jail" -d 'Show, check and enter a site\'s cell'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "status" -d 'Show the sites of the pool: workers, queue, requests, times'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "top" -d 'Show them again and again, with what happened in between'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "pool" -d 'Stop, start or restart the FastCGI pool of one site'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "deployed" -d 'Tell the pool that a site was deployed: new workers, and no lost request'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "fix" -d 'List owners and modes that the launcher refuses, or mend them'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "set" -d 'Change one key of a site\'s file, and apply it'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "import" -d 'Make files of sites of an Apache with suEXEC, or of php-fpm\'s pools'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and not __fish_seen_subcommand_from apply check policy why denials explain learn run jail status top pool deployed fix set import help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and __fish_seen_subcommand_from jail" -f -a "show" -d 'Print what is visible inside, as a tree, with the line behind each path'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and __fish_seen_subcommand_from jail" -f -a "check" -d 'Try inside what the site\'s programs need: interpreters, names, TLS, time zones, sockets, mail …'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and __fish_seen_subcommand_from jail" -f -a "build" -d 'Make a directory a chroot, by copying what sites, pieces and programs need'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and __fish_seen_subcommand_from jail" -f -a "refresh" -d 'Bring such a chroot up to date after the system was'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and __fish_seen_subcommand_from jail" -f -a "shell" -d 'Start a shell, or one command, inside: for administrators, cron and ssh'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and __fish_seen_subcommand_from pool" -f -a "stop" -d 'Answer all requests of a site with 503, and end its workers, until it is started again'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and __fish_seen_subcommand_from pool" -f -a "start" -d 'Serve a stopped site again'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and __fish_seen_subcommand_from pool" -f -a "restart" -d 'Put new workers in the place of a site\'s old ones, without a lost request'
complete -c cellwall -n "__fish_cellwall_using_subcommand help; and __fish_seen_subcommand_from pool" -f -a "reload" -d 'Have the daemon read the policy again; apply does it too'

# Names of sites beside what stands above.
function __cellwall_sites
    for file in /etc/cellwall/sites.d/*.toml
        string replace -r '.*/(.*)\.toml$' '$1' $file
    end
end
complete -c cellwall -n 'not __fish_use_subcommand' -a '(__cellwall_sites)'

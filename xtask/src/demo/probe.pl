#!/usr/bin/perl
# What code in a hacked site would try first. Prints one line for each attempt: name=what happened.
use strict;
use warnings;
use Socket;

my ($neighbour, $pid, $listed, $other, $left_behind) = split /,/, $ENV{QUERY_STRING} // '';
print "Content-Type: text/plain\n\n";

sub report { my ($name, $done, $word) = @_; print "$name=", ($done ? $word : "denied"), "\n" }

sub readable { open(my $file, '<', $_[0]) or return 0; return defined(scalar <$file>) }

sub listed {
    opendir(my $directory, $_[0]) or return 0;
    return scalar(grep { $_ eq $_[1] } readdir $directory);
}

sub connected {
    socket(my $socket, PF_INET, SOCK_STREAM, 0) or return 0;
    return connect($socket, pack_sockaddr_in($_[0], inet_aton('127.0.0.1')));
}

report('neighbour', readable("/var/www/$neighbour/htdocs/config.php"), 'read');
report('names', listed('/var/www', $neighbour), 'seen');
report('process', listed('/proc', $pid), 'seen');
report('left_behind', readable($left_behind), 'read');
report('other_port', connected($other), 'connected');
report('own_script', open(my $script, '>>', 'probe.cgi'), 'changed');
report('listed_port', connected($listed), 'connected');
report('uploads', open(my $upload, '>', 'uploads/note.txt'), 'written');

#!/bin/sh
# rustc makes a program of fixed addresses where it links one for 64-bit ARM without shared libraries, though the C library that it
# brings along has what one for any address begins with: this puts that in its place. A set-id program has no fixed addresses.
case $(uname -m) in
aarch64) compiler=cc ;;
*) compiler=aarch64-linux-gnu-gcc ;;
esac
for word do
    shift
    case $word in
    -static) continue ;;
    -no-pie) word=-static-pie ;;
    */crt1.o) word=${word%crt1.o}rcrt1.o ;;
    */crtbegin.o | */crtend.o) word=${word%.o}S.o ;;
    esac
    set -- "$@" "$word"
done
exec "$compiler" "$@"

// A program that is busy in one function, for the profiler: for ten seconds at least, so that nothing that the kernel does is longer
// on any host, nor most of what makes a host stop.
#include <stdio.h>
#include <time.h>

__attribute__((noinline)) long collatz(unsigned long number) {
    long steps = 0;
    for (; number != 1; steps++)
        number = number & 1 ? 3 * number + 1 : number / 2;
    return steps;
}

__attribute__((noinline)) long compute(unsigned long last) {
    long steps = 0;
    for (unsigned long number = 1; number <= last; number++)
        steps += collatz(number);
    return steps;
}

int main(void) {
    long steps = 0;
    do
        steps += compute(500000);
    while (clock() < 10 * CLOCKS_PER_SEC);
    printf("busy: %ld steps\n", steps);
    return 0;
}

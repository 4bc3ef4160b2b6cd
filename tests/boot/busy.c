// A program that is busy in one function, for the profiler.
#include <stdio.h>

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
    printf("busy: %ld steps\n", compute(2000000));
    return 0;
}

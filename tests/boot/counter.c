// A program for a debugger: four processes of it count, each in its own copy of a variable, until one is told to stop.
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// No process ever has a value that another one has, or a debugger would not see that a variable has changed.
#define BASE 1000000000000L
volatile long counter;
// Which process this is, from 0, and the identity of process 0, who is the parent of the others.
volatile int self;
volatile long first;
// All processes have this one in common.
volatile int *stop;

__attribute__((noinline)) long work(long amount) {
    long before = counter;
    counter = before + amount;
    return before;
}

__attribute__((noinline)) long ask(void) {
    long parent = syscall(SYS_getppid);
    return parent + 1;
}

int main(void) {
    long rounds;
    stop = mmap(NULL, sizeof *stop, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    first = getpid();
    for (int child = 1; child <= 3; child++)
        if (fork() == 0) {
            self = child;
            counter = child * BASE;
            break;
        }
    for (rounds = 0; !*stop; rounds++) {
        work(self + 1);
        ask();
        syscall(SYS_sched_yield);
    }
    if (self == 0)
        while (wait(NULL) > 0)
            ;
    printf("process %d counted %s\n", self, counter == self * BASE + rounds * (self + 1) ? "right" : "wrong");
    return 0;
}

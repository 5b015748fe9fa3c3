/* Runs a Python program: for tests/live/python.rs. */
#include <Python.h>
#include <stdio.h>

__attribute__((noinline)) static int runs_python(const char *path) {
    FILE *file = fopen(path, "r");
    int failed = PyRun_SimpleFile(file, path);
    fclose(file);
    return failed;
}

int main(int argc, char **argv) {
    Py_Initialize();
    int failed = argc < 2 || runs_python(argv[1]);
    return Py_FinalizeEx() < 0 || failed;
}

// Computing without Python's global lock.
#pragma once

#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

namespace fedtlu {

// Takes the GIL back. Before Python 3.14, pthread_exit ends a thread that asks for it while the interpreter
// shuts down, and would unwind through our Python objects without the GIL: our thread sleeps instead, as
// Python's do since 3.14.
inline void take_gil(PyThreadState* state) {
#if defined(__GLIBCXX__)
    try {
        PyEval_RestoreThread(state);
    } catch (abi::__forced_unwind&) {
        for (;;) pause();
    }
#else
    PyEval_RestoreThread(state);
#endif
}

template <class Compute>
void without_gil(const Compute& compute) {
    PyThreadState* state = PyEval_SaveThread();
    try {
        compute();
    } catch (...) {
        take_gil(state);
        throw;
    }
    take_gil(state);
}

}  // namespace fedtlu

// A small pool of sleeping threads that divide numbered items of work among them.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

namespace fedtlu {

class ThreadPool {
  public:
    // The process's pool. A forked child, which has none of its parent's threads, gets a new one.
    static ThreadPool& instance();

    // Calls work(item) once for every item in [0, items), on up to `threads` threads, the caller one of
    // them; returns when all are done. `work` must not throw. Several threads may call this concurrently.
    // If the system refuses threads, the work is done by fewer.
    //
    // One thread gets up to `grain` consecutive items, if there are enough for all threads: a pass over
    // memory has already prefetched the start of the next item, and would start cold in any other.
    template <class Work>
    void run(int threads, std::int64_t items, const Work& work, std::int64_t grain = 1) {
        Job job;
        job.grain = std::clamp<std::int64_t>(items / (8 * static_cast<std::int64_t>(threads)), 1, grain);
        job.call = [](const void* context, std::int64_t item) noexcept {
            (*static_cast<const Work*>(context))(item);
        };
        job.work = &work;
        job.items = items;
        run(threads, job);
    }

  private:
    struct Job {
        void (*call)(const void* work, std::int64_t item) noexcept = nullptr;
        const void* work = nullptr;
        std::int64_t items = 0;
        std::int64_t grain = 1;
        std::atomic<std::int64_t> next{0};
        // Guarded by the pool's mutex.
        int openings = 0;  // helpers that may still join
        int helpers = 0;   // helpers at work
    };

    ThreadPool() = default;

    void run(int threads, Job& job);
    void hire(int workers) noexcept;
    void work_forever();
    static void drain(Job& job) noexcept;

    std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable done_;
    std::vector<Job*> open_;  // jobs with openings
    int workers_ = 0;
};

}  // namespace fedtlu

#include "thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <exception>
#include <thread>

#include "float_env.h"

namespace fedtlu {
namespace {

constexpr int kMaxWorkers = 256;

// Never freed, because its threads sleep in it until the process ends.
std::atomic<ThreadPool*> pool{nullptr};

// Registered when the library loads. A forked child has none of the other threads, so a lock that one of them
// held would never be released: the child drops the whole pool.
[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr, std::memory_order_relaxed); });

// Signals go to the program's own threads, which expect them.
class SignalsBlocked {
  public:
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  private:
    sigset_t before_;
};

}  // namespace

ThreadPool& ThreadPool::instance() {
    ThreadPool* current = pool.load(std::memory_order_acquire);
    if (current == nullptr) {
        auto* fresh = new ThreadPool;
        if (pool.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
        delete fresh;
    }
    return *current;
}

void ThreadPool::run(int threads, Job& job) {
    const auto helpers = static_cast<int>(std::min<std::int64_t>({threads - 1, job.items - 1, kMaxWorkers}));
    if (helpers <= 0) {
        drain(job);
        return;
    }
    {
        const std::lock_guard lock(mutex_);
        hire(helpers);
        job.openings = helpers;
        open_.push_back(&job);
    }
    for (int i = 0; i < helpers; ++i) wake_.notify_one();
    drain(job);

    std::unique_lock lock(mutex_);
    open_.erase(std::remove(open_.begin(), open_.end(), &job), open_.end());
    done_.wait(lock, [&job] { return job.helpers == 0; });
}

void ThreadPool::hire(int workers) noexcept {
    if (workers_ >= workers) return;
    const SignalsBlocked blocked;
    try {
        for (; workers_ < workers; ++workers_) std::thread(&ThreadPool::work_forever, this).detach();
    } catch (const std::exception&) {
        // The system refuses more threads: the existing ones do the work.
    }
}

void ThreadPool::work_forever() {
    const DefaultFloatEnv env;
    std::unique_lock lock(mutex_);
    for (;;) {
        wake_.wait(lock, [this] { return !open_.empty(); });
        Job& job = *open_.front();
        if (--job.openings == 0) open_.erase(open_.begin());
        ++job.helpers;
        lock.unlock();
        drain(job);
        lock.lock();
        if (--job.helpers == 0) done_.notify_all();
    }
}

void ThreadPool::drain(Job& job) noexcept {
    for (;;) {
        const std::int64_t first = job.next.fetch_add(job.grain, std::memory_order_relaxed);
        if (first >= job.items) return;
        const std::int64_t end = std::min(job.items, first + job.grain);
        for (std::int64_t item = first; item < end; ++item) job.call(job.work, item);
    }
}

}  // namespace fedtlu

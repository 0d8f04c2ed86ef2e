"""The same engine written the slow, obvious way: one step at a time, one block at a time.

It follows vLLM's scheduler line by line, with numbered blocks in a queue of free ones. What the
real one does in closed form must come out the same here.
"""

from collections import deque

from loadgen.engine.cost import StepCost


class Request:
    def __init__(self, number, prompt, output, keys):
        self.number, self.prompt, self.output, self.keys = number, prompt, output, keys
        self.generated = 0
        self.computed = 0
        self.goal = prompt
        self.blocks = []
        self.started = False

    @property
    def known(self):
        return self.prompt + self.generated


class NaiveEngine:
    def __init__(self, profile, kv_blocks, budget, seats, slowdown=1.0):
        self.cost, self.size = StepCost(profile), profile.block_tokens
        self.budget, self.seats, self.slowdown = budget, seats, slowdown
        self.free = deque(range(kv_blocks))
        self.users = [0] * kv_blocks
        self.hash_of = {}
        self.blocks_of = {}
        self.running, self.waiting = [], deque()
        self.now = 0.0
        self.step = None
        self.log = []
        self.queries = self.hits = self.preemptions = 0

    def advance(self, until):
        while self.step or ((self.running or self.waiting) and until > self.now):
            if self.step is None:
                self.plan()
            end, scheduled = self.step
            if end > until:
                break
            self.now, self.step = end, None
            self.finish_step(scheduled)
        self.now = max(self.now, until)

    def submit(self, request, now):
        self.advance(now)
        self.waiting.append(request)

    def abort(self, request, now):
        self.advance(now)
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            self.running.remove(request)
            self.release(request)

    def plan(self):
        scheduled, preempted, budget = {}, False, self.budget
        index = 0
        while index < len(self.running):
            request = self.running[index]
            tokens = min(request.known - request.computed, budget)
            if not tokens:
                index += 1
                continue
            while not self.allocate(request, request.computed + tokens):
                victim = self.running.pop()
                self.preempt(victim)
                preempted = True
                if victim is request:
                    break
            else:
                scheduled[request] = tokens
                budget -= tokens
                index += 1
        if not preempted:
            self.admit(scheduled, budget)
        self.step = (self.now + self.seconds(scheduled), scheduled)

    def admit(self, scheduled, budget):
        while self.waiting and budget and len(self.running) < self.seats:
            request = self.waiting[0]
            found = self.find(request)
            tokens = min(request.known - len(found) * self.size, budget)
            if not self.allocate(request, len(found) * self.size + tokens, found):
                break
            self.waiting.popleft()
            self.running.append(request)
            request.computed = len(found) * self.size
            request.goal = request.known
            if not request.started:
                request.started = True
                self.queries += request.prompt
                self.hits += request.computed
            scheduled[request] = tokens
            budget -= tokens
            self.publish(request, request.computed + tokens)

    def find(self, request):
        found = []
        for key in request.keys[: (request.known - 1) // self.size]:
            if not self.blocks_of.get(key):
                break
            found.append(next(iter(self.blocks_of[key])))
        return found

    def allocate(self, request, tokens, found=()):
        new = -(-tokens // self.size) - len(request.blocks) - len(found)
        unused = sum(not self.users[block] for block in found)
        if new > len(self.free) - unused:
            return False
        for block in found:
            if not self.users[block]:
                self.free.remove(block)
            self.take(request, block)
        for _ in range(new):
            block = self.free.popleft()
            if (key := self.hash_of.pop(block, None)) is not None:
                del self.blocks_of[key][block]
            self.take(request, block)
        if request in self.running and request.computed < request.goal:
            self.publish(request, tokens)
        return True

    def take(self, request, block):
        self.users[block] += 1
        request.blocks.append(block)

    def publish(self, request, tokens):
        for key, block in zip(request.keys[: tokens // self.size], request.blocks, strict=False):
            if block not in self.hash_of:
                self.hash_of[block] = key
                self.blocks_of.setdefault(key, {})[block] = None

    def release(self, request):
        self.publish(request, request.computed)
        for block in reversed(request.blocks):
            self.users[block] -= 1
            if not self.users[block]:
                self.free.append(block)
        request.blocks = []

    def preempt(self, request):
        self.release(request)
        request.computed = 0
        self.preemptions += 1
        self.waiting.appendleft(request)
        self.log.append(("preempted", request.number, self.now))

    def seconds(self, scheduled):
        decodes = [r for r in scheduled if r.computed >= r.goal]
        total = self.cost.base_s(sum(scheduled.values()), len(self.running))
        total += self.cost.context_s * sum(r.computed for r in decodes)
        for request, tokens in scheduled.items():
            if request not in decodes:
                total += self.cost.prefill_attention_s(tokens, request.computed)
        return total * self.slowdown

    def finish_step(self, scheduled):
        for request, tokens in scheduled.items():
            if request not in self.running:
                continue  # aborted
            request.computed += tokens
            if request.computed < request.known:
                continue
            request.generated += 1
            if request.generated == 1:
                self.log.append(("first_token", request.number, self.now))
            if request.generated == request.output:
                self.running.remove(request)
                self.release(request)
                self.log.append(("finished", request.number, self.now))

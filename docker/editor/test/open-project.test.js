// What the page does around a save: drafts while working, trying again, changes during a save.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {BackendError} from '../src/backend.js';
import {OpenProject} from '../src/open-project.js';

/** An open project with a clock of its own. */
function opened ({results = [], captureMs = 0} = {}) {
    const clock = {now: 0, timers: new Map(), next: 1};
    const told = [];
    const kept = [];
    const project = new OpenProject({
        projectId: '1',
        capture: async () => {
            clock.now += captureMs;
            return {file: new Blob([`at ${clock.now}`]), title: 'Katze', thumbnail: null};
        },
        saver: {
            retrySeconds: () => 4,
            keep: async (id, content) => kept.push([id, await content.file.text()]),
            save: async () => {
                const result = results.shift() ?? {id: 1, version: 2, outcome: 'saved'};
                if (typeof result === 'function') return result(project);
                if (result instanceof Error) throw result;
                return result;
            }
        },
        page: {
            saving: () => told.push('saving'),
            saved: () => told.push('saved'),
            failed: (error, seconds) => told.push(`failed ${error.status} ${seconds}`),
            changedSince: () => told.push('changed since'),
            retry: () => told.push('retry')
        },
        schedule: (work, ms) => {
            clock.timers.set(clock.next, {at: clock.now + ms, work});
            return clock.next++;
        },
        cancel: timer => clock.timers.delete(timer),
        now: () => clock.now
    });
    const pass = async ms => {
        const until = clock.now + ms;
        for (;;) {
            const [id, due] = [...clock.timers].sort((a, b) => a[1].at - b[1].at)[0] ?? [];
            if (!due || due.at > until) break;
            clock.timers.delete(id);
            clock.now = Math.max(clock.now, due.at);
            await due.work();
        }
        clock.now = Math.max(clock.now, until);
    };
    return {project, pass, told, kept};
}

test('change becomes a draft when the pupil pauses', async () => {
    const {project, pass, kept} = opened();
    project.changed();
    await pass(1400);
    assert.equal(kept.length, 0);
    await pass(200);
    assert.deepEqual(kept, [['1', 'at 1500']]);
});

test('work without a pause becomes a draft every five seconds', async () => {
    const {project, pass, kept} = opened();
    for (let change = 0; change < 100; change++) {
        project.changed();
        await pass(100);
    }
    assert.ok(kept.length >= 2, `${kept.length} drafts in ten seconds`);
});

test('large project is captured less often', async () => {
    const {project, pass, kept} = opened({captureMs: 1000});
    for (let change = 0; change < 200; change++) {
        project.changed();
        await pass(100);
    }
    assert.ok(kept.length >= 2 && kept.length <= 4, `${kept.length} drafts in twenty seconds`);
});

test('saved project needs no draft', async () => {
    const {project, pass, kept, told} = opened();
    project.changed();
    await project.save();
    await pass(10000);
    assert.deepEqual([kept.length, project.isUnsaved], [0, false]);
    assert.deepEqual(told, ['saving', 'saved']);
});

test('change during a save is reported as unsaved and becomes a draft', async () => {
    const {project, pass, told, kept} = opened({results: [open => {
        open.changed();
        return {id: 1, version: 2, outcome: 'saved'};
    }]});
    project.changed();
    await project.save();
    assert.deepEqual(told, ['saving', 'saved', 'changed since']);
    assert.equal(project.isUnsaved, true);
    await pass(6000);
    assert.equal(kept.length, 1);
});

test('failed save leaves the project unsaved and is tried again', async () => {
    const {project, pass, told} = opened({results: [new BackendError(503)]});
    project.changed();
    await assert.rejects(project.save());
    assert.deepEqual(told, ['saving', 'changed since', 'failed 503 4']);
    await pass(3900);
    assert.equal(told.at(-1), 'failed 503 4');
    await pass(200);
    assert.equal(told.at(-1), 'retry');
});

test('save that cannot succeed is not tried again', async () => {
    const {project, pass, told} = opened({results: [new BackendError(413)]});
    project.changed();
    await assert.rejects(project.save());
    await pass(60000);
    assert.equal(told.at(-1), 'failed 413 null');
    assert.equal(project.isUnsaved, true);
});

test('returning network tries at once', async () => {
    const {project, told} = opened({results: [new BackendError(0)]});
    project.changed();
    await assert.rejects(project.save());
    project.retryNow();
    assert.equal(told.at(-1), 'retry');
    project.retryNow();
    assert.equal(told.filter(each => each === 'retry').length, 1);
});

// The project on the editor's page: it is captured as a draft after each change, and saved when scratch-gui asks for it.

const KEEP_QUIET_MS = 1500; // a draft is written when a pupil pauses for so long,
const KEEP_LATEST_MS = 5000; // or at the latest after this time
const KEEP_SHARE = 8; // a large project is captured less often: at most this part of the time

export class OpenProject {
    /**
     * @param {{saver, capture: () => Promise<{file: Blob, title: string, thumbnail: Blob|null}>, projectId: string|null,
     * page: object, schedule?: typeof setTimeout, cancel?: typeof clearTimeout, now?: () => number}} options
     * `capture` takes the project of the editor. `page` is told: saving(), saved(result), failed(error, seconds),
     * changedSince() when the project changed during its save, and retry() when it is time to try again.
     */
    constructor ({saver, capture, projectId, page, schedule, cancel, now}) {
        this._saver = saver;
        this._capture = capture;
        this._page = page;
        this._schedule = schedule ?? ((work, ms) => setTimeout(work, ms));
        this._cancel = cancel ?? (timer => clearTimeout(timer));
        this._now = now ?? (() => Date.now());
        this.projectId = projectId;
        this._changes = 0; // counted; each one that is not acknowledged must be in a draft
        this._acknowledged = 0;
        this._keepTimer = null;
        this._keepBy = null;
        this._captureMs = 0;
        this._retryTimer = null;
        this._attempts = 0;
        this._saving = false;
    }

    get isUnsaved () {
        return this._changes !== this._acknowledged;
    }

    /** The pupil changed something. */
    changed () {
        this._changes++;
        const now = this._now();
        this._keepBy ??= now + Math.max(KEEP_LATEST_MS, this._captureMs * KEEP_SHARE);
        if (this._keepTimer !== null) this._cancel(this._keepTimer);
        const quiet = Math.max(KEEP_QUIET_MS, this._captureMs * KEEP_SHARE / 2);
        this._keepTimer = this._schedule(() => this.keep(), Math.max(0, Math.min(quiet, this._keepBy - now)));
    }

    /** Write the draft now, if something is unsaved. */
    async keep () {
        if (this._keepTimer !== null) this._cancel(this._keepTimer);
        this._keepTimer = this._keepBy = null;
        if (!this.isUnsaved || this._saving) return;
        const began = this._now();
        const content = await this._capture();
        this._captureMs = this._now() - began;
        if (!this.isUnsaved || this._saving) return;
        await this._saver.keep(this.projectId, content);
    }

    /**
     * Save for scratch-gui. `separate` makes a copy or remix. Resolves to what Saver.save resolves to.
     * Throws BackendError; then the page's retry() is called after a while, if trying again can help.
     */
    async save (title, {separate = false} = {}) {
        if (this._retryTimer !== null) this._cancel(this._retryTimer);
        this._retryTimer = null;
        const changes = this._changes;
        this._saving = true;
        this._page.saving();
        try {
            const content = await this._capture();
            if (title) content.title = title;
            const result = await this._saver.save(separate ? null : this.projectId, content, {separate});
            this._attempts = 0;
            if (!separate) {
                this._acknowledged = changes;
                this.projectId = String(result.id);
            }
            this._saving = false;
            this._page.saved(result);
            // scratch-gui takes the project for saved now, and so would not save these changes.
            if (!separate && this.isUnsaved) {
                this._page.changedSince();
                this.changed();
            }
            return result;
        } catch (error) {
            this._saving = false;
            const seconds = error.isTemporary ? this._saver.retrySeconds(++this._attempts, error) : null;
            // scratch-gui takes a failed save for a saved project: it would neither try again nor warn.
            if (!separate) this._page.changedSince();
            this._page.failed(error, seconds);
            if (seconds !== null && !separate) {
                this._retryTimer = this._schedule(() => this._page.retry(), seconds * 1000);
            }
            throw error;
        }
    }

    /** The network is back, or the person logged in again: try at once. */
    retryNow () {
        if (this._retryTimer === null) return;
        this._cancel(this._retryTimer);
        this._retryTimer = null;
        this._page.retry();
    }
}

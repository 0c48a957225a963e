// Saves one project, and loses nothing: each content is a draft in this browser before it is sent, and stays one until
// the server has acknowledged it.
import {BackendError} from './backend.js';

const hex = buffer => [...new Uint8Array(buffer)].map(byte => byte.toString(16).padStart(2, '0')).join('');

/** SHA-256 of a Blob as the back end writes it. */
export async function sha256 (blob) {
    return hex(await crypto.subtle.digest('SHA-256', await blob.arrayBuffer()));
}

/** Seconds until try number `attempt` (1, 2, …): what the server asks for, else 2, 4, 8, … at most 30. */
export function retrySeconds (attempt, error) {
    return error?.retryAfter ?? Math.min(2 ** attempt, 30);
}

/**
 * What the page does for the saver:
 *   conflict({mine, theirs}) resolves to 'copy', 'mine' or 'theirs'
 *   logIn() resolves to true when the same user is logged in again, to false when the person gave up
 */
export class Saver {
    /** @param {{backend, drafts, userId: string, page: object, newKey?: () => string}} options */
    constructor ({backend, drafts, userId, page, newKey = () => crypto.randomUUID()}) {
        this._backend = backend;
        this._drafts = drafts;
        this._userId = userId;
        this._page = page;
        this._newKey = newKey;
        this._versions = new Map(); // project id → the version that this page shows
        this._sent = new Set(); // SHA-256 of contents whose answers were lost
        this._creation = null; // the key of a project that the server may have created without our knowing
    }

    /** The project with this id is on the page now, in this version. */
    opened (projectId, version) {
        this._versions.set(String(projectId), version);
    }

    /** The version of a project on this page, or null. */
    version (projectId) {
        return this._versions.get(String(projectId)) ?? null;
    }

    /** The key of the draft of a project, or of the new project of this page. */
    draftKey (projectId) {
        if (projectId !== null) return String(projectId);
        this._creation ??= this._newKey();
        return `new-${this._creation}`;
    }

    /** Continue a draft of a new project: a save that was sent before has the same key. */
    continueNew (draftKey) {
        this._creation = draftKey.slice('new-'.length);
    }

    /** See the function. */
    retrySeconds (attempt, error) {
        return retrySeconds(attempt, error);
    }

    /** Keep content in this browser. A browser without room must not prevent a save: returns whether it was kept. */
    async keep (projectId, content) {
        try {
            await this._drafts.put({
                userId: this._userId,
                key: this.draftKey(projectId),
                projectId: projectId === null ? null : String(projectId),
                version: projectId === null ? null : this.version(projectId),
                ...content
            });
            return true;
        } catch {
            return false;
        }
    }

    /**
     * Save content, a {file, title, thumbnail}, over a project, or as a new one (`projectId` null).
     * `separate` makes a copy beside the project of this page.
     * Resolves to {id, version, outcome}; outcome is 'saved', 'copied', or 'theirs' when the person chose the other
     * version, which the page must load. Throws BackendError; the draft then stays.
     */
    async save (projectId, content, {separate = false} = {}) {
        const key = separate ? null : this.draftKey(projectId);
        if (!separate) await this.keep(projectId, content);
        let target = projectId === null ? null : String(projectId);
        let outcome = separate ? 'copied' : 'saved';
        let creation = separate ? this._newKey() : this._creation;
        let base = target === null ? null : this.version(target);
        for (;;) {
            try {
                const saved = await this._send(target, content, base, creation);
                return await this._acknowledged(key, saved, outcome);
            } catch (error) {
                if (!(error instanceof BackendError)) throw error;
                if (error.status === 401) {
                    if (await this._page.logIn(error)) continue;
                    throw error;
                }
                if (error.isTemporary) {
                    this._sent.add(await sha256(content.file));
                    throw error;
                }
                if (error.status !== 409) throw error;
                if (this._sent.has(error.body.sha256)) {
                    // Our own save, whose answer was lost. Newer content goes on top of it.
                    if (error.body.sha256 === await sha256(content.file)) {
                        return await this._acknowledged(key, {id: Number(target), version: error.body.version}, outcome);
                    }
                    base = error.body.version;
                    continue;
                }
                const choice = await this._page.conflict({mine: content, theirs: {id: target, ...error.body}});
                if (choice === 'theirs') {
                    await this._drafts.remove(this._userId, key).catch(() => {});
                    return {id: Number(target), version: error.body.version, outcome: 'theirs'};
                }
                if (choice === 'mine') {
                    base = error.body.version;
                } else {
                    target = base = null;
                    creation = this._newKey();
                    outcome = 'copied';
                }
            }
        }
    }

    async _send (target, content, base, creation) {
        const form = new FormData();
        form.append('project_file', content.file, 'project.sb3');
        if (content.thumbnail) form.append('thumbnail', content.thumbnail, 'thumbnail.png');
        if (base !== null) form.append('version', String(base));
        const query = {title: content.title || undefined};
        return target === null ?
            this._backend.json('POST', '/api/projects', {query, form, headers: {'Idempotency-Key': creation}}) :
            this._backend.json('PUT', `/api/projects/${target}`, {query, form});
    }

    async _acknowledged (key, saved, outcome) {
        this._versions.set(String(saved.id), saved.version);
        this._sent.clear();
        if (key !== null) {
            if (key.startsWith('new-')) this._creation = null;
            await this._drafts.remove(this._userId, key).catch(() => {});
        }
        return {id: saved.id, version: saved.version, outcome};
    }
}

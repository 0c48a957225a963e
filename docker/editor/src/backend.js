// The back end as our pages see it. The browser sends the session in a cookie that no script can read.

/** A request that failed. `status` is 0 when no answer arrived; `retryAfter` is in seconds, or null. */
export class BackendError extends Error {
    constructor (status, body = null, retryAfter = null) {
        super(body?.error ?? body?.message ?? `HTTP ${status}`);
        this.name = 'BackendError';
        this.status = status;
        this.body = body;
        this.retryAfter = retryAfter;
    }

    /** Whether the same request may succeed later: no network, or a server that is busy, full or restarting. */
    get isTemporary () {
        return this.status === 0 || this.status === 429 || this.status >= 500;
    }
}

export class Backend {
    /**
     * @param {{fetch: typeof fetch, timeoutSeconds?: number}} options - `timeoutSeconds` ends a request without an
     * answer; it is longer than the server's own limit of 60 s.
     */
    constructor ({fetch, timeoutSeconds = 75}) {
        this._fetch = fetch;
        this._timeoutSeconds = timeoutSeconds;
        this._userId = null;
    }

    /**
     * All tabs share one cookie. With the name of the user whose work this page holds, the server answers 401 after
     * another user has logged in, instead of saving the work for that user.
     */
    actFor (userId) {
        this._userId = userId;
    }

    /** The answer's JSON. Throws BackendError. */
    async json (method, path, options = {}) {
        const answer = await this.request(method, path, options);
        try {
            return await answer.json();
        } catch {
            throw new BackendError(0); // the connection ended inside the answer
        }
    }

    /** The answer. Throws BackendError for every status but 2xx. */
    async request (method, path, {query = {}, json, form, headers = {}} = {}) {
        const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
        const search = new URLSearchParams(given).toString();
        const sent = {Accept: 'application/json', ...headers};
        if (json !== undefined) sent['Content-Type'] = 'application/json';
        if (this._userId !== null) sent['X-Expected-User'] = encodeURIComponent(this._userId);
        let answer;
        try {
            answer = await this._fetch(`/backend${path}${search ? `?${search}` : ''}`, {
                method,
                headers: sent,
                body: json === undefined ? form : JSON.stringify(json),
                cache: 'no-store',
                credentials: 'same-origin',
                signal: AbortSignal.timeout(this._timeoutSeconds * 1000)
            });
        } catch {
            throw new BackendError(0);
        }
        if (answer.ok) return answer;
        const body = await answer.json().catch(() => null);
        const wait = Number(answer.headers.get('Retry-After'));
        throw new BackendError(answer.status, body, wait > 0 ? wait : null);
    }
}
